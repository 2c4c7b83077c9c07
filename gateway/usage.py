"""What an answer took, in tokens, as its expert counted them. Values; never decides anything."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

MOST_TOKENS: Final = 2**53


@dataclass(slots=True)
class Usage:
    """Tokens as the expert counted them; None where it did not say, `estimated` where the gateway guessed."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    estimated: bool = False

    @classmethod
    def of(cls, usage: object) -> "Usage":
        """From the `usage` object of chat.completions; anything that is not a count is None."""
        if not isinstance(usage, dict):
            return cls()
        return cls(
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
            cached_tokens=_count(_inner(usage, "prompt_tokens_details").get("cached_tokens")),
            reasoning_tokens=_count(_inner(usage, "completion_tokens_details").get("reasoning_tokens")),
        )

    @classmethod
    def total(cls, usages: "Sequence[Usage]") -> "Usage":
        """Of all attempts of a call; None where none of them said."""
        if len(usages) == 1:
            return usages[0]
        return cls(
            prompt_tokens=_sum(usage.prompt_tokens for usage in usages),
            completion_tokens=_sum(usage.completion_tokens for usage in usages),
            cached_tokens=_sum(usage.cached_tokens for usage in usages),
            reasoning_tokens=_sum(usage.reasoning_tokens for usage in usages),
            estimated=any(usage.estimated for usage in usages),
        )


def _sum(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _inner(usage: dict[str, Any], key: str) -> dict[str, Any]:
    inner = usage.get(key)
    return inner if isinstance(inner, dict) else {}


def _count(value: object) -> int | None:
    """A count that every database can hold; an upstream may say anything."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_TOKENS else None
