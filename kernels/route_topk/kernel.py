"""Scores to routing in one launch: softmax or sigmoid, the k best, top-p cut, null columns, remapping, renormalising.

One program a token. A slot that ends without an expert has id -1 and weight 0, which every later kernel skips.
"""

import triton
import triton.language as tl


@triton.jit
def route_topk(
    logits_ptr, bias_ptr, remap_ptr, scale_ptr, ids_ptr, weights_ptr, columns, experts, top_p, s_token,
    K: tl.constexpr, BLOCK_E: tl.constexpr, SOFTMAX: tl.constexpr, RENORM: tl.constexpr, TOP_P: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_REMAP: tl.constexpr, HAS_SCALE: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    t = tl.program_id(0)
    e = tl.arange(0, BLOCK_E)
    known = e < columns
    logits = tl.load(logits_ptr + t * s_token + e, mask=known, other=-float("inf")).to(tl.float32)  # [columns]
    if SOFTMAX:
        powers = tl.exp(logits - tl.max(logits, 0))
        scores = powers / tl.sum(powers, 0)
    else:
        scores = tl.sigmoid(logits)
    choice = scores
    if HAS_BIAS:  # moves the choice, not the weight (DeepSeek-V3, arXiv 2412.19437, eq. 16)
        choice += tl.load(bias_ptr + e, mask=known, other=0.0).to(tl.float32)
    choice = tl.where(known, choice, -float("inf"))

    lane = tl.arange(0, BLOCK_K)
    ids = tl.full((BLOCK_K,), -1, tl.int32)
    weights = tl.zeros((BLOCK_K,), tl.float32)
    before = 0.0  # probability of the columns already taken
    for j in tl.static_range(K):
        best = tl.argmax(choice, 0)
        weight = tl.sum(tl.where(e == best, scores, 0.0), 0)
        choice = tl.where(e == best, -float("inf"), choice)
        ok = best < experts  # columns past the experts are null experts
        if TOP_P:  # the smallest set whose probability reaches top_p (arXiv 2403.07652, eq. 4)
            ok = ok & (before < top_p)
        before += weight
        target = best.to(tl.int32)
        if HAS_SCALE:
            weight *= tl.sum(tl.where(e == best, tl.load(scale_ptr + e, mask=e < experts, other=0.0), 0.0), 0)
        if HAS_REMAP:
            target = tl.sum(tl.where(e == best, tl.load(remap_ptr + e, mask=e < experts, other=-1), 0), 0).to(tl.int32)
            ok = ok & (target >= 0)
        ids = tl.where((lane == j) & ok, target, ids)
        weights = tl.where((lane == j) & ok, weight, weights)
    if RENORM:
        total = tl.sum(weights, 0)
        weights = weights / tl.where(total > 0.0, total, 1.0)
    tl.store(ids_ptr + t * K + lane, ids, mask=lane < K)
    tl.store(weights_ptr + t * K + lane, weights, mask=lane < K)
