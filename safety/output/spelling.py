"""Names that are taken for another: spelt nearly alike (optimal string alignment), or with signs that look alike."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from conclave.safety.boundary.views import confusables

LEAST_ONE: Final = 5  # letters of a name that one slip may change
LEAST_TWO: Final = 10  # that two may
MOST: Final = 32
SHAPES: Final = (("rn", "m"), ("vv", "w"), ("cl", "d"))
DIGITS: Final = str.maketrans(
    {"0": "o", "1": "l", "i": "l", "|": "l", "3": "e", "5": "s", "4": "a", "7": "t", "j": "l"}
)


@lru_cache(maxsize=4_096)
def skeleton(name: str) -> str:
    """What a name looks like at a glance: two names with the same one are easily taken for each other."""
    if not name.isascii():
        name = name.translate(confusables())
    shape = name.lower().translate(DIGITS)
    for two, one in SHAPES:
        shape = shape.replace(two, one)
    return shape


class Neighbours:
    """Finds which of some names another one is nearly. A name's letters, less one or two, lead to it."""

    def __init__(self, names: Iterable[str]) -> None:
        self._led: dict[str, list[str]] = {}
        for name in names:
            for shorter in _shorter(name, slips(name)):
                self._led.setdefault(shorter, []).append(name)

    def of(self, name: str) -> str:
        """The name that it is nearly, but not quite; empty if there is none."""
        if not LEAST_ONE - 1 <= len(name) <= MOST:
            return ""
        for shorter in _shorter(name, 2 if len(name) >= LEAST_TWO - 2 else 1):
            for known in self._led.get(shorter, ()):
                if 0 < distance(name, known, slips(known)) <= slips(known):
                    return known
        return ""


def slips(name: str) -> int:
    """How many slips a name of this length bears until it is another."""
    return 2 if len(name) >= LEAST_TWO else 1 if len(name) >= LEAST_ONE else 0


def _shorter(name: str, depth: int) -> Iterator[str]:
    yield name
    level = {name}
    for _ in range(depth):
        level = {one[:at] + one[at + 1 :] for one in level for at in range(len(one))}
        yield from level


def distance(a: str, b: str, most: int) -> int:
    """Insertions, deletions, changes and swaps of neighbours from one to the other; `most + 1` for more than that."""
    if abs(len(a) - len(b)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, last, row = row, before, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
