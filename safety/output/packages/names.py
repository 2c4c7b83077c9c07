"""When a package's name can be taken for another's: by a slip of the finger, by its looks, or by what hangs on it.

Names are compared without their separators and in lower case. Whether either of them exists is not for this page. Pure;
a comparison with five thousand names takes some 30 microseconds.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEPARATORS: Final = str.maketrans("", "", "-_./@")
ALIKE: Final = str.maketrans("01i|5", "olll" + "s")  # in most typefaces
PAIRS: Final = (("rn", "m"), ("vv", "w"), ("ii", "u"))
LEAST_FOR_ONE: Final = 5  # letters from which one edit is a slip: shorter names are all neighbours of each other
LEAST_FOR_TWO: Final = 9
LEAST_ROOT: Final = 4  # letters of a name that something hangs on
FOR_ONE: Final = 3_000  # the most used names that a name with one edit can be meant for:
FOR_TWO: Final = 1_000  # with two; less used ones have too many honest neighbours
FOR_AFFIX: Final = 2_000
FOR_FIRST_LETTER: Final = 500  # few slips are in the first letter
LONGEST: Final = 100  # characters of a name that are compared
KINDS: Final = 37  # letters, digits, others
DIGITS: Final = "0123456789"
WORDS: Final = re.compile(r"[^-_./@]+")
BEFORE: Final = ("python3", "python", "nodejs", "node", "py", "js", "go", "ruby", "the", "real", "official")
AFTER: Final = (
    *("python3", "python", "nodejs", "node", "javascript", "typescript", "js", "ts", "py", "py3", "ruby", "rb"),
    *("official", "latest", "stable", "dev", "lib", "library", "package", "pkg", "module", "2", "3", "s"),
)


def squashed(name: str) -> str:
    """The name as one word."""
    return name.lower().translate(SEPARATORS)


def skeleton(word: str) -> str:
    """What a squashed name looks like."""
    for pair, single in PAIRS:
        word = word.replace(pair, single)
    return word.translate(ALIKE)


def edits(word: str) -> int:
    """How many edits away a name of that length may be to be taken for a slip."""
    return 2 if len(word) >= LEAST_FOR_TWO else 1 if len(word) >= LEAST_FOR_ONE else 0


def distance(one: str, other: str, most: int) -> int:
    """Edits and swaps of neighbours between two words (optimal string alignment); more than `most` is `most` + 1."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        row = [i] + [0] * len(other)
        for j, its in enumerate(other, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != its))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == its:
                cost = min(cost, before[j - 2] + 1)
            row[j] = cost
        if min(row) > most:
            return most + 1
        before, last = last, row
    return min(last[-1], most + 1)


class Neighbours:
    """Names, the most used first, and which of them another name may be taken for."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def alike(self, name: str) -> str | None:
        """The name that differs by separators, by looks or by an affix alone; of several, the most used."""
        word = squashed(name)
        if not LEAST_ROOT <= len(word) <= LONGEST:
            return None
        places = [place for place in self._alike(word) if place is not None]
        return self._names[min(places)] if places else None

    def same(self, name: str) -> str | None:
        """The name that differs by separators or by looks alone."""
        word = squashed(name)
        place = self._by_word.get(word, self._by_look.get(skeleton(word)))
        return None if place is None or len(word) < LEAST_ROOT else self._names[place]

    def slip(self, name: str, *, most: int = 2) -> str | None:
        """The name that is a slip of the finger away, of `most` edits; of several as near, the most used."""
        word = squashed(name)
        if not LEAST_ROOT <= len(word) <= LONGEST:
            return None
        for size in range(1, min(edits(word), most) + 1):
            for place in self._within(word, size):
                other = self._words[place]
                if distance(word, other, size) <= size and is_slip(name, self._names[place]):
                    return self._names[place]
        return None

    def _alike(self, word: str) -> Iterator[int | None]:
        """Where only separators, look-alikes or affixes differ."""
        yield self._by_word.get(word)
        yield self._by_look.get(skeleton(word))
        for affix in BEFORE:
            if word.startswith(affix) and len(word) - len(affix) >= LEAST_ROOT:
                yield self._known_root(word[len(affix) :])
        for affix in AFTER:
            if word.endswith(affix) and len(word) - len(affix) >= LEAST_ROOT:
                yield self._known_root(word[: -len(affix)])

    def _known_root(self, root: str) -> int | None:
        place = self._by_word.get(root)
        return place if place is not None and place < FOR_AFFIX else None

    def _within(self, word: str, most: int) -> Iterator[int]:
        """Where letters and length do not rule it out: an edit changes how often two letters occur, by one each."""
        import numpy as np  # noqa: PLC0415  the main command's imports are everyone's

        first = FOR_ONE if most == 1 else FOR_TWO
        sizes = self._sizes[:first]
        few = np.flatnonzero(np.abs(sizes - len(word)) <= most)
        apart = np.bitwise_count(self._letters[:first][few] ^ np.uint64(_letters(word)))  # [few]
        few = few[apart <= 2 * most]
        if len(few):
            counts = np.array(_counts(word), dtype=np.int8)
            few = few[np.abs(self._counts[few] - counts).sum(axis=1) <= 2 * most]
        for place in few.tolist():
            if self._words[place][0] == word[0] or (most == 1 and place < FOR_FIRST_LETTER):
                yield place

    @cached_property
    def _words(self) -> list[str]:
        return [squashed(name) for name in self._names]

    @cached_property
    def _by_word(self) -> dict[str, int]:
        return _first(self._words)

    @cached_property
    def _by_look(self) -> dict[str, int]:
        return _first(map(skeleton, self._words))

    @cached_property
    def _letters(self) -> "NDArray[np.uint64]":
        import numpy as np  # noqa: PLC0415

        return np.array([_letters(word) for word in self._words], dtype=np.uint64)

    @cached_property
    def _counts(self) -> "NDArray[np.int8]":
        import numpy as np  # noqa: PLC0415

        return np.array([_counts(word) for word in self._words], dtype=np.int8).reshape(-1, KINDS)

    @cached_property
    def _sizes(self) -> "NDArray[np.int16]":
        import numpy as np  # noqa: PLC0415

        return np.array([len(word) for word in self._words], dtype=np.int16)


def is_slip(name: str, other: str) -> bool:
    """Whether what differs is a slip, and not a sibling: `boto3-sqs` and `boto3-sns`, `cu11` and `cu12` are two."""
    ours, theirs = WORDS.findall(name.lower()), WORDS.findall(other.lower())
    if len(ours) != len(theirs):
        return True
    apart = [(one, two) for one, two in zip(ours, theirs, strict=True) if one != two]
    if any(one.rstrip(DIGITS) == two.rstrip(DIGITS) for one, two in apart):
        return False
    return len(ours) == 1 or all(distance(one, two, 2) <= edits(max(one, two, key=len)) for one, two in apart)


def _first(words: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for place, word in enumerate(words):
        found.setdefault(word, place)
    return found


def _kind(letter: str) -> int:
    """A letter or digit by its number; all others share one."""
    if "a" <= letter <= "z":
        return ord(letter) - 97
    return 26 + ord(letter) - 48 if "0" <= letter <= "9" else KINDS - 1


def _letters(word: str) -> int:
    """Which letters it has, as bits."""
    bits = 0
    for letter in word:
        bits |= 1 << _kind(letter)
    return bits


def _counts(word: str) -> list[int]:
    """How often each occurs."""
    counts = [0] * KINDS
    for letter in word[:LONGEST]:
        counts[_kind(letter)] += 1
    return counts
