"""How much of a question stands in what was found: evidence of whether it is worth reading, not of what is true.

The share of the question's content words that one of the best passages holds, each weighted by how rare it is in the
library: a name that no document has counts most, and is never covered.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

BEST: Final = 3  # passages that are looked at
WORD: Final = re.compile(r"[^\W_]+")
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
    words = set(WORD.findall(text.lower()))
    return [stem for stem in stems if stem in words or any(_is_form(word, stem) for word in words)]


def _is_form(word: str, stem: str) -> bool:
    return word.startswith(stem) and len(word) - len(stem) <= ENDING


def _weight(holders: int, passages: int) -> float:
    """Inverse document frequency (Robertson and Zaragoza 2009, eq. 3.3), 1 added so that it stays positive."""
    return math.log(1 + (max(passages, holders) - holders + 0.5) / (holders + 0.5))
