"""What a library must no longer say: subjects, kept as keyed hashes, so that the list itself names nobody.

A subject is a run of words, compared without case, accents' forms and punctuation; in scripts without spaces, a run of
characters. `Suppression` says whether a text holds one that was suppressed.
"""

import hmac
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self

from conclave.retrieval.library import Library

WORD: Final = re.compile(r"[^\W_]+")
DENSE: Final = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
LEAST_CHARS: Final = 3  # a shorter subject is in too many words
LEAST_DENSE: Final = 2
MOST_WORDS: Final = 20


@dataclass(frozen=True, slots=True)
class Subject:
    """A name, an address, a number: its units are words, or characters where the script has no spaces."""

    units: tuple[str, ...]
    dense: bool

    @classmethod
    def of(cls, text: str) -> Self:
        """Raises ValueError."""
        dense = bool(DENSE.search(text))
        units = tuple(units_of(text, dense=dense))
        if len("".join(units)) < (LEAST_DENSE if dense else LEAST_CHARS):
            raise ValueError("a subject has at least three letters or digits, for shorter ones stand in every text")
        if not dense and len(units) > MOST_WORDS:
            raise ValueError(f"a subject has at most {MOST_WORDS} words: a name, an address, a number")
        return cls(units, dense)

    def inside(self, text: str) -> bool:
        """Whether a text names it."""
        gap = "" if self.dense else " "
        said = gap.join(units_of(text, dense=self.dense))
        return f"{gap}{gap.join(self.units)}{gap}" in f"{gap}{said}{gap}"

    @property
    def length(self) -> int:
        """How many units; negative where they are characters."""
        return -len(self.units) if self.dense else len(self.units)

    def hashed(self, key: bytes) -> bytes:
        return _hashed(self.units, key)


@dataclass(frozen=True, slots=True)
class Suppression:
    """All that was suppressed in a library."""

    key: bytes
    hashes: Mapping[int, frozenset[bytes]]  # by length, as `Subject.length` has it

    @classmethod
    def of(cls, library: Library) -> Self:
        return cls(library.fact("key") or b"", library.suppressed())

    def holds(self, text: str) -> bool:
        for length, hashes in self.hashes.items():
            units = units_of(text, dense=length < 0)
            size = abs(length)
            runs = {tuple(units[at : at + size]) for at in range(len(units) - size + 1)}
            if any(_hashed(run, self.key) in hashes for run in runs):
                return True
        return False


def units_of(text: str, *, dense: bool) -> list[str]:
    words = WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return list("".join(words)) if dense else words


def _hashed(units: Sequence[str], key: bytes) -> bytes:
    return hmac.digest(key, "\0".join(units).encode("utf-8", "replace"), sha256)
