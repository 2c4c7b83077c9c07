"""What the text of a question says of itself, in numbers: its shape, words of time, and how rare its words are.

Rarity is read off the encoder's vocabulary: a WordPiece vocabulary lists its words by how frequent they were in what it
was made from, so that a word's place is a rank (Zipf), and a name in five pieces was not frequent at all. No corpus is
needed for it; the counts of one say more (`Known.rarest`).
"""

import math
import re
from typing import Final, Protocol

CHARS: Final = 4_000
FIRST_WORD: Final = 1_996  # of BERT's uncased vocabulary: marks and letters stand before
WORD: Final = re.compile(r"[^\W_]+")
NAME: Final = re.compile(r"(?<=\s)[A-Z][\w'-]+")
YEAR: Final = re.compile(r"\b(?:1[0-9]|20)\d\d\b")
TIME_WORDS: Final = frozenset(
    [
        "now",
        "today",
        "tonight",
        "tomorrow",
        "yesterday",
        "current",
        "currently",
        "latest",
        "newest",
        "recent",
        "recently",
        "nowadays",
    ]
)
ASKING: Final = ("who", "what", "which", "when", "where", "how", "why")
TASKS: Final = frozenset(
    """
    write explain summarize summarise translate generate create implement solve calculate compute rewrite answer given
    choose select following options read passage article text function code python return
    """.split()  # noqa: SIM905  a column of strings is not easier to read
)
NUMBERS: Final = (
    "words", "chars_a_word", "names", "digits", "years", "quotes", "lines", "question_mark", "time", "task",
    "rarest", "rarity", "pieces", *ASKING,
)  # fmt: skip


class Pieces(Protocol):
    """A tokenizer, as far as it is needed here."""

    def ids(self, text: str) -> list[int]: ...


def numbers_of(question: str, tokens: Pieces) -> tuple[float, ...]:
    """The numbers of a question, in the order of NUMBERS; all are of the size of 1."""
    text = question[:CHARS].encode("utf-8", "replace").decode("utf-8")
    words = [word.lower() for word in WORD.findall(text)]
    held, count = set(words), max(1, len(words))
    ids = tokens.ids(text)
    ranks = [math.log(max(1, token - FIRST_WORD + 1)) / 10 for token in ids if token >= FIRST_WORD]
    return (
        math.log1p(len(words)) / 3,
        len(text) / count / 6,
        len(NAME.findall(text)) / count,
        sum(map(str.isdigit, text)) / max(1, len(text)) * 5,
        float(bool(YEAR.search(text))),
        float('"' in text or "'" in text),
        math.log1p(text.count("\n")),
        float(text.rstrip().endswith("?")),
        float(not TIME_WORDS.isdisjoint(held)),
        min(1.0, len(TASKS & held) / 3),
        max(ranks, default=0.0),
        sum(ranks) / max(1, len(ranks)),
        len(ids) / count - 1,
        *(float(word in words[:3]) for word in ASKING),
    )
