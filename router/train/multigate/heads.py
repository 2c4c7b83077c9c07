"""One logistic regression a task: the simple thing that a network for all tasks has to beat."""

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

ITERATIONS: Final = 100


def fit_head(
    inputs: "NDArray[np.float32]",
    labels: "NDArray[np.int64]",
    *,
    classes: int,
    penalty: float,
    weights: "NDArray[np.float32] | None" = None,
) -> "NDArray[np.float32]":
    """Weights of least penalised log loss, [inputs + 1, classes]; the last row is the bias, which costs nothing."""
    counts = np.ones(len(labels), dtype=np.float32) if weights is None else weights
    counts = (counts / counts.sum())[:, None]
    truth = np.zeros((len(labels), classes), dtype=np.float32)
    truth[np.arange(len(labels)), labels] = 1

    def objective(vector: "NDArray[np.float64]") -> tuple[float, "NDArray[np.float64]"]:
        head = vector.astype(np.float32).reshape(-1, classes)
        logits = scores(head, inputs)
        logits -= logits.max(axis=1, keepdims=True)
        powers = np.exp(logits)
        sums = powers.sum(axis=1, keepdims=True)
        loss = float((counts * (np.log(sums) - (logits * truth).sum(axis=1, keepdims=True))).sum())
        slope = (powers / sums - truth) * counts  # [rows, classes]
        free = vector.reshape(head.shape)[:-1]
        gradient = np.concatenate((inputs.T @ slope, slope.sum(axis=0, keepdims=True))).astype(np.float64)
        gradient[:-1] += penalty * free
        return loss + penalty / 2 * float(np.square(free).sum()), gradient.ravel()

    with threadpool_limits(1):
        start = np.zeros((inputs.shape[1] + 1) * classes)
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    head: NDArray[np.float32] = found.x.astype(np.float32).reshape(-1, classes)
    return head


def scores(head: "NDArray[np.float32]", inputs: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Logits, [rows, classes]."""
    found: NDArray[np.float32] = inputs @ head[:-1] + head[-1]
    return found
