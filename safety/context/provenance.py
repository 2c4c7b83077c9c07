"""Where a passage came from, how far that is trusted, and which passages one hand could have written.

It counts voices: passages of one source, or with one text, say a thing once however often they say it. It judges no
text, and proves no identity: a source is what the index says it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Trust(IntEnum):
    """How far whoever added a passage vouches for it. The numbers are those of the index."""

    UNTRUSTED = 0
    NORMAL = 1
    TRUSTED = 2


WEIGHTS: Final[Mapping[Trust, float]] = {Trust.UNTRUSTED: 0.25, Trust.NORMAL: 1.0, Trust.TRUSTED: 3.0}  # of a voice


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage that was found for a question. `batch` is the run that added it; empty where nobody knows."""

    text: str
    source: str = ""
    batch: str = ""
    trust: Trust = Trust.NORMAL
    acl: tuple[str, ...] = ()


def one_hand(left: Evidence, right: Evidence) -> bool:
    """Whether one hand could have put both there: the same source or batch, or nothing known of both."""
    if not (left.source or left.batch or right.source or right.batch):
        return True
    return bool((left.source and left.source == right.source) or (left.batch and left.batch == right.batch))


def voices(passages: Sequence[Evidence]) -> tuple[int, ...]:
    """The number of each passage's voice, [passages].

    Passages without a source are a voice each: a vote among them is worth no more than that.
    """
    seen: dict[tuple[str, str], int] = {}
    found = []
    for number, passage in enumerate(passages):
        text = ("text", " ".join(passage.text.casefold().split()))
        keys = [text, ("source", passage.source)] if passage.source else [text]
        voice = next((seen[key] for key in keys if key in seen), number)
        seen.update(dict.fromkeys(keys, voice))
        found.append(voice)
    return tuple(found)


def share(weights: Mapping[int, float], chosen: Sequence[int]) -> float:
    """The part of all voices' weight that these have, 0..1."""
    total = sum(weights.values())
    return sum(weights[voice] for voice in set(chosen)) / total if total > 0 else 0.0


def weights_of(passages: Sequence[Evidence], spoken: Sequence[int]) -> dict[int, float]:
    """The weight of each voice: that of the most trusted passage in which it speaks."""
    found: dict[int, float] = {}
    for passage, voice in zip(passages, spoken, strict=True):
        found[voice] = max(found.get(voice, 0.0), WEIGHTS[passage.trust])
    return found
