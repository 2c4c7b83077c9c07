"""The inner loop of the fit, compiled by numba: one row at a time, with a step of its own for each feature.

AdaGrad (Duchi, Hazan, Singer 2011, eq. 1), its accumulator kept by feature rather than by weight, on the weighted log
loss of a multinomial logistic regression; the penalty of a feature that a row lacks is made up for when it comes next.
A few passes are worth more than the optimum: on unseen sources five passes beat forty steps of L-BFGS, and they cost a
tenth (docs/router-evidence.md). Plain loops in one fixed order: no sum is reordered, so a run gives the same bits.
"""

import math
from typing import Any

import numpy as np
from numba import njit

F32 = np.float32
START = F32(0.01)  # of the accumulators: the first step is about one learning rate long
LEAST_KEPT = F32(0.1)  # of a weight, however long its feature was away


@njit(cache=True)
def descend(  # noqa: PLR0912, PLR0913, PLR0917  one loop over arrays, as compiled code wants it
    dense: Any,  # [rows, features] fp32
    starts: Any,  # [rows + 1] where a row's codes begin
    codes: Any,  # [all codes] int32
    values: Any,  # [all codes] fp32
    truth: Any,  # [rows, classes] fp32, each row sums to 1
    weight: Any,  # [rows] fp32, mean 1
    order: Any,  # [passes, rows]
    penalty: Any,
    rate: Any,
    on_dense: Any,  # [features, classes] fp32, written
    on_codes: Any,  # [codes, classes] fp32, written
    bias: Any,  # [classes] fp32, written
) -> None:
    rows, features = dense.shape
    classes = truth.shape[1]
    dense_sum = np.full(features, START, dtype=np.float32)
    code_sum = np.full(on_codes.shape[0], START, dtype=np.float32)
    bias_sum = START
    met = np.zeros(on_codes.shape[0], dtype=np.int64)
    slope = np.zeros(classes, dtype=np.float32)
    step = 0
    for turn in range(order.shape[0]):
        for place in range(rows):
            row = order[turn, place]
            step += 1
            for k in range(classes):
                slope[k] = bias[k]
            for j in range(features):
                x = dense[row, j]
                if x != 0:
                    for k in range(classes):
                        slope[k] += x * on_dense[j, k]
            for p in range(starts[row], starts[row + 1]):
                for k in range(classes):
                    slope[k] += values[p] * on_codes[codes[p], k]
            top = slope.max()
            total = F32(0)
            for k in range(classes):
                slope[k] = F32(math.exp(slope[k] - top))
                total += slope[k]
            size = F32(0)
            for k in range(classes):
                slope[k] = (slope[k] / total - truth[row, k]) * weight[row]
                size += slope[k] * slope[k]
            bias_sum += size
            pace = rate / F32(math.sqrt(bias_sum))
            for k in range(classes):
                bias[k] -= pace * slope[k]
            for j in range(features):
                x = dense[row, j]
                if x != 0:
                    dense_sum[j] += size * x * x
                    pace = rate / F32(math.sqrt(dense_sum[j]))
                    kept = max(LEAST_KEPT, F32(1) - pace * penalty)
                    for k in range(classes):
                        on_dense[j, k] = on_dense[j, k] * kept - pace * x * slope[k]
            for p in range(starts[row], starts[row + 1]):
                code = codes[p]
                x = values[p]
                code_sum[code] += size * x * x
                pace = rate / F32(math.sqrt(code_sum[code]))
                kept = max(LEAST_KEPT, F32(1) - pace * penalty * F32(step - met[code]))
                met[code] = step
                for k in range(classes):
                    on_codes[code, k] = on_codes[code, k] * kept - pace * x * slope[k]
