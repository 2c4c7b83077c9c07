"""The words by which passages and questions are compared: those that carry content, without their endings."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

READ_CHARS: Final = 8_000  # of a passage; an index cuts them at a tenth of it
WORD: Final = re.compile(r"[^\W_]+")  # one class: linear
ENDINGS: Final = ("ing", "ed", "es", "ly", "s")
LEAST_STEM: Final = 3
SENTENCE: Final = re.compile(r"(?<=[.!?])\s|\n")
MOST_SENTENCES: Final = 64
FUNCTION_WORDS: Final = frozenset(
    """
    a about after all also an and any are as at be because been before being but by can could did do does during each
    for from get had has have he her here him his how i if in into is it its just like made make many may me might more
    most much my no nor not of off on only or other our out over she should so some such than that the their them then
    there these they this those through to too under until up very was we were what when where which while who whom
    whose why will with would yes you your
    """.split()  # noqa: SIM905  a column of strings is not easier to read
)


def plain(text: str) -> str:
    """Lower case without compatibility forms, at most READ_CHARS; lone surrogates become question marks."""
    text = text[:READ_CHARS]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode("utf-8"))
    return text.lower()


@lru_cache(maxsize=32_768)  # 3 MB; a third of the time that a passage takes
def stem(word: str) -> str:
    """The word without a common English ending."""
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= LEAST_STEM:
            return word[: -len(ending)]
    return word


def content(text: str) -> frozenset[str]:
    """The stems of a text's words but for those of grammar."""
    return frozenset(stem(word) for word in WORD.findall(plain(text)) if word not in FUNCTION_WORDS)


def names(question: str) -> frozenset[str]:
    """The stems of a question's names and numbers: its words with a digit, or with a capital but for the first."""
    words = WORD.findall(question[:READ_CHARS])
    named = [word for at, word in enumerate(words) if (at and word[0].isupper()) or any(map(str.isdigit, word))]
    return content(" ".join(named))


@dataclass(frozen=True, slots=True)
class Read:
    """A passage's sentences with the stems of each, and those of the whole."""

    sentences: tuple[tuple[str, frozenset[str]], ...]
    words: frozenset[str]


def read(text: str) -> Read:
    """Read a passage once for all who compare it."""
    sentences = [one for one in SENTENCE.split(text[:READ_CHARS]) if one][:MOST_SENTENCES]
    parts = tuple((one, content(one)) for one in sentences)
    return Read(parts, frozenset().union(*(words for _, words in parts)))
