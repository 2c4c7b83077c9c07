"""Whether what a tool says of itself gives the model orders that no tool has to give, as a hostile server's does.

An honest description is phrased as an order, too ("always pass the id"), so `embedded` alone is no judge of it. What
counts are signs of orders beyond the tool: to keep something from the user, to fetch secrets or the conversation, to
carry them out, to steer other tools, to set rules aside. One sign is little; a few within a window are a finding. The
signs are data, `safety/rules/described.yaml`. Pure, and linear in the text. It knows English words alone.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from conclave.safety.detect.patterns import Regexp

RULES: Final = Path(__file__).parent.parent / "rules" / "described.yaml"
KIND: Final = "embedded.tool"  # of a finding
ENOUGH: Final = 0.995  # of weights: a sum of tenths that is 1
WINDOW_CHARS: Final = 480  # what belongs together: three or four sentences
SENTENCE: Final = re.compile(r"(?<=[.!?;])\s+")  # where one ends
LEARNED: Final = "learned"  # the sign that is the learned detector's

Learned = Callable[[str], float]


class Pattern(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One pattern; a text in which `unless` matches, too, does not count."""

    weight: float
    pattern: str
    unless: str = ""


class FromLearned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the learned detector adds from the score `at` on.

    From `alone` on, in what is left without sentences that speak `about` the tool itself, it needs no other sign.
    """

    at: float
    weight: float
    alone: float
    about: str


class SignsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """described.yaml."""

    learned: FromLearned
    signs: dict[str, tuple[Pattern, ...]]


@dataclass(frozen=True, slots=True)
class Told:
    """What a text comes to: the sum of its signs' weights in its worst window, and which signs they are."""

    weight: float
    signs: tuple[str, ...]

    @property
    def is_order(self) -> bool:
        """Whether that is enough for a finding."""
        return self.weight >= ENOUGH

    @property
    def confidence(self) -> float:
        """0..1; half where it is just enough."""
        return min(1.0, self.weight / 2)


NOTHING: Final = Told(0.0, ())


@dataclass(frozen=True, slots=True)
class _Compiled:
    sign: str
    weight: float
    found: Regexp
    unless: Regexp | None


class Signs:
    """The signs, compiled."""

    def __init__(self, file: SignsFile) -> None:
        import re2  # noqa: PLC0415  20 ms, and only where a policy looks for them

        options: Any = re2.Options()
        options.case_sensitive = False
        options.log_errors = False
        self._learned = file.learned
        self._about: Regexp = re2.compile(file.learned.about.encode(), options)
        self._patterns = tuple(
            _Compiled(
                sign,
                one.weight,
                re2.compile(one.pattern.encode(), options),
                re2.compile(one.unless.encode(), options) if one.unless else None,
            )
            for sign, patterns in file.signs.items()
            for one in sorted(patterns, key=lambda one: -one.weight)
        )

    def told(self, text: str, learned: Learned) -> Told:
        """What the text says beyond its tool; `learned` is the learned detector's score of a text."""
        rest = self._beside(text)
        worst = Told(1.0, (LEARNED,)) if rest and learned(rest) >= self._learned.alone else NOTHING
        least = ENOUGH - self._learned.weight
        if len(text) > WINDOW_CHARS and sum(self._heaviest(text).values()) < least:
            return worst  # all of it together is too little
        for window in _windows(text):
            weights = self._weights(window)
            if sum(weights.values()) < least:
                continue
            if learned(window) >= self._learned.at:
                weights[LEARNED] = self._learned.weight
            weight = sum(weights.values())
            if weight > worst.weight:
                worst = Told(weight, tuple(weights))
        return worst

    def _beside(self, text: str) -> str:
        """The sentences that do not speak about the tool itself."""
        sentences = SENTENCE.split(text)
        kept = [one for one in sentences if self._about.search(one.encode("utf-8", "replace")) is None]
        return text if len(kept) == len(sentences) else " ".join(kept)

    def _weights(self, text: str) -> dict[str, float]:
        """By sign the heaviest pattern that is found."""
        data = text.encode("utf-8", "replace")
        weights: dict[str, float] = {}
        for one in self._patterns:  # the heaviest of a sign comes first
            if one.sign in weights or one.found.search(data) is None:
                continue
            if one.unless is None or one.unless.search(data) is None:
                weights[one.sign] = one.weight
        return weights

    def _heaviest(self, text: str) -> dict[str, float]:
        """As `_weights`, without exceptions: what excuses one window is no excuse for another."""
        data = text.encode("utf-8", "replace")
        weights: dict[str, float] = {}
        for one in self._patterns:
            if one.sign not in weights and one.found.search(data) is not None:
                weights[one.sign] = one.weight
        return weights


@cache
def signs() -> Signs:
    """The shipped ones."""
    import yaml  # noqa: PLC0415  only where a policy looks for them

    return Signs(msgspec.convert(yaml.safe_load(RULES.read_bytes()), SignsFile))


def told(text: str, learned: Learned) -> Told:
    """What a text of a tool says beyond its tool. A list of words, or one name, is read as a sentence, too."""
    found = signs().told(text, learned)
    if "\n" in text or " " not in text:
        spaced = signs().told(" ".join(text.replace("_", " ").replace("-", " ").split()), learned)
        found = max(found, spaced, key=lambda one: one.weight)
    return found


def _windows(text: str) -> Iterator[str]:
    """The text, or overlapping windows of it that begin at a word."""
    if len(text) <= WINDOW_CHARS:
        yield text
        return
    step = WINDOW_CHARS // 2
    for at in range(0, len(text) - step, step):
        start = text.find(" ", at, at + 40) + 1 if at else 0
        yield text[start or at : at + WINDOW_CHARS]
