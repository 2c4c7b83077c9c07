"""Turns the arguments of a transformers model's forward pass into a `Step`: shapes, padding, place in the sequence.

It reads masks and the cache's length, nothing else. Memory of sequences is tied to the cache object and goes with it.
"""

import weakref
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Final

import torch

from conclave.moe.routing import Limits, Policy, Step, Tensor


class Memories:
    """What policies remember of sequences, for as long as their KV cache lives."""

    def __init__(self) -> None:
        self._by_cache: weakref.WeakKeyDictionary[Any, MutableMapping[int, Tensor]] = weakref.WeakKeyDictionary()

    def of(self, cache: object | None) -> MutableMapping[int, Tensor] | None:
        return None if cache is None else self._by_cache.setdefault(cache, {})


ARGUMENTS: Final = ("input_ids", "attention_mask", "position_ids", "past_key_values", "inputs_embeds")


def named(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a decoder's forward by name, also those that were given by place."""
    return {**dict(zip(ARGUMENTS, args, strict=False)), **kwargs}


def read(  # noqa: PLR0913  one argument for each thing that a step may depend on
    given: Mapping[str, Any],
    *,
    policy: Policy,
    limits: Limits,
    memories: Memories,
    generator: torch.Generator | None,
    training: bool,
) -> Step:
    """The step of one forward pass. Raises ValueError if the policy looks back and sequences cannot be told apart."""
    tokens = given.get("input_ids") if given.get("inputs_embeds") is None else given["inputs_embeds"]
    if tokens is None:
        raise ValueError("the model was called without input_ids and without inputs_embeds")
    batch, length = tokens.shape[:2]
    cache = given.get("past_key_values")
    past = 0 if cache is None else int(cache.get_seq_length())
    real, start = _padding(given.get("attention_mask"), batch, length, past, policy=policy, device=tokens.device)
    for name, rows in (("experts_max", limits.experts_max), ("allowed", limits.allowed)):
        if rows is not None and rows.shape[0] != batch:
            raise ValueError(f"{name} has {rows.shape[0]} rows and the batch {batch} sequences")
    memory = memories.of(cache) if policy.looks_back else None
    return Step(batch, length, real, start, limits, memory, generator, training)


def _padding(  # noqa: PLR0913  as above
    mask: object, batch: int, length: int, past: int, *, policy: Policy, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What is no padding [batch, length], and the real tokens before it [batch]."""
    if isinstance(mask, torch.Tensor) and mask.dim() == 2 and mask.shape[1] >= length:  # noqa: PLR2004  [batch, tokens]
        kept = mask.to(torch.bool)
        past = min(past, kept.shape[1] - length)  # a static cache's mask is longer than what is in use
        return kept[:, past : past + length], kept[:, :past].sum(dim=1)
    if mask is not None and policy.looks_back:
        raise ValueError(
            f"{type(policy).__name__} looks at earlier tokens of a sequence and needs a mask [batch, tokens]; "
            "packed or paged batches do not say where a sequence begins"
        )
    whole = torch.ones(batch, length, dtype=torch.bool, device=device)
    return whole, torch.full((batch,), past, dtype=torch.int64, device=device)
