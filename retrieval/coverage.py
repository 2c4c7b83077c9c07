"""How much of a question stands in what was found: evidence of whether it is worth reading, not of what is true.

The share of the question's content words that one of the best passages holds, each weighted by how rare it is in the
library: a name that no document has counts most, and is never covered.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

BEST: Final = 3  # passages that are looked at
ENDING: Final = 4  # characters that a word may have beyond its stem


def covered(stems: Mapping[str, int], texts: Sequence[str], *, passages: int) -> float:
    """The highest coverage of the first texts, 0..1; 0 for a question without a content word.

    `stems` are those of the question's words, with how many of the library's `passages` hold each.
    """
    weights = {stem: _weight(holders, passages) for stem, holders in stems.items()}
    total = sum(weights.values())
    if total <= 0:
        return 0.0
    return max((sum(weights[stem] for stem in _held(weights, text)) for text in texts[:BEST]), default=0.0) / total


def _held(stems: Mapping[str, float], text: str) -> list[str]:
    lower = text.lower()
    return [stem for stem in stems if _has_form(lower, stem)]


def _has_form(text: str, stem: str) -> bool:
    """Whether a word of the text begins with the stem and ends soon after.

    It looks where the stem stands and no further: splitting three passages into words takes several times as long.
    """
    at = text.find(stem)
    while at >= 0:
        inside = at > 0 and text[at - 1].isalnum()
        rest = text[at + len(stem) : at + len(stem) + ENDING + 1]
        if not inside and not (len(rest) > ENDING and rest.isalnum()):
            return True
        at = text.find(stem, at + 1)
    return False


def _weight(holders: int, passages: int) -> float:
    """Inverse document frequency (Robertson and Zaragoza 2009, eq. 3.3), 1 added so that it stays positive."""
    return math.log(1 + (max(passages, holders) - holders + 0.5) / (holders + 0.5))
