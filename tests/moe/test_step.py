"""Reading a forward pass: padding, place in the sequence, and what cannot be told apart is refused."""

from typing import Any

import pytest
import torch

from conclave.moe.routing import POLICIES, Limits, Step
from conclave.moe.step import Memories, named, read

TOKENS = torch.ones(2, 3, dtype=torch.int64)


class Cache:
    """What `read` asks a KV cache for."""

    def __init__(self, length: int) -> None:
        self._length = length

    def get_seq_length(self) -> int:
        return self._length


def step(policy: str = "topk", memories: Memories | None = None, **given: Any) -> Step:
    return read(
        {"input_ids": TOKENS} | given,
        policy=POLICIES.make(policy),
        limits=Limits(),
        memories=memories or Memories(),
        generator=None,
        training=False,
    )


def test_without_mask_and_cache_all_is_real_and_begins_at_zero() -> None:
    found = step()
    assert found.real.all()
    assert (found.batch, found.length, found.start.tolist()) == (2, 3, [0, 0])


def test_a_mask_over_past_and_present_gives_this_passes_padding_and_the_real_past() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]])
    found = step(attention_mask=mask, past_key_values=Cache(3))
    assert found.start.tolist() == [1, 3]
    assert found.real.tolist() == [[True, True, True], [True, True, False]]


def test_arguments_by_place_are_read_by_name() -> None:
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    assert named((TOKENS, mask), {"use_cache": True}).keys() == {"input_ids", "attention_mask", "use_cache"}


def test_memory_lives_as_long_as_its_cache_and_only_for_policies_that_look_back() -> None:
    memories, cache = Memories(), Cache(0)
    first = step("patch_causal", memories, past_key_values=cache)
    assert first.memory is not None
    first.memory[0] = TOKENS
    assert step("patch_causal", memories, past_key_values=cache).memory == {0: TOKENS}
    assert step("patch_causal", memories, past_key_values=Cache(0)).memory == {}
    assert step("topk", memories, past_key_values=cache).memory is None


def test_a_packed_batch_is_refused_by_a_policy_that_looks_back_and_served_by_others() -> None:
    packed = torch.ones(1, 1, 3, 3)
    assert step("topp", attention_mask=packed).real.all()
    with pytest.raises(ValueError, match="do not say where a sequence begins"):
        step("patch_causal", attention_mask=packed)


def test_a_call_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="without input_ids"):
        step(input_ids=None)
