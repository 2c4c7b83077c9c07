"""What a passage answers to a question, by rules: the numbers, dates and names in the sentences that are about it.

Short and rough on purpose: no model reads here. A value that stands in the question is no answer; neither is one in a
sentence that is about something else. Yes and no are read from whether a sentence says or denies what was asked.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from conclave.safety.context.words import FUNCTION_WORDS, READ_CHARS, WORD, Read, content, plain, read, stem

ABOUT: Final = 0.5  # the share of the question's content words that a sentence about it has
MOST_VALUES: Final = 32  # of a passage
NUMBER: Final = re.compile(r"\d[\d,.]*")
NAME: Final = re.compile(r"[A-Z][\w'-]*(?: (?:of |the |de |von |van )?[A-Z][\w'-]*){0,4}")
DIGITS: Final = {
    word: str(number)
    for number, word in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
}
WHEN: Final = frozenset(["when", "year", "date", "day", "month", "century"])
COUNT: Final = frozenset(
    [
        "many",
        "much",
        "long",
        "old",
        "far",
        "tall",
        "high",
        "big",
        "large",
        "number",
        "percentage",
        "population",
        "often",
        "fast",
    ]
)
YES_NO: Final = frozenset(
    [
        "is",
        "are",
        "was",
        "were",
        "do",
        "does",
        "did",
        "can",
        "could",
        "will",
        "would",
        "has",
        "have",
        "had",
        "should",
        "may",
        "might",
        "must",
        "am",
    ]
)
DENIALS: Final = frozenset(
    [
        "not",
        "no",
        "never",
        "cannot",
        "can't",
        "isn't",
        "aren't",
        "wasn't",
        "weren't",
        "don't",
        "doesn't",
        "didn't",
        "won't",
    ]
)
TRUE: Final = frozenset(["yes", "true", "correct"])
FALSE: Final = frozenset(["no", "false", "incorrect"])


class Asked(StrEnum):
    """What kind of answer a question wants."""

    YES_NO = "yes_no"
    NUMBER = "number"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class Question:
    """A question as it is compared with passages."""

    asked: Asked
    words: frozenset[str]
    denied: bool = False


def question_of(text: str) -> Question:
    """What a question asks for."""
    said = WORD.findall(plain(text)[:2_000])
    words = content(text[:2_000])
    if said and said[0] in YES_NO:
        return Question(Asked.YES_NO, words, denied=_denies(plain(text)))
    heads = said[:12]
    if not WHEN.isdisjoint(heads) or ("how" in heads and not COUNT.isdisjoint(heads)):
        return Question(Asked.NUMBER, words)
    return Question(Asked.NAME, words)


def claims(question: Question, passage: Read) -> tuple[str, ...]:
    """The values that a passage could mean as its answer, in order; none if it does not speak about the question."""
    found: dict[str, None] = {}
    about = _about(question, passage)
    if question.asked is Asked.YES_NO:
        for sentence in about[:1]:
            found["no" if _denies(sentence.lower()) != question.denied else "yes"] = None
        return tuple(found)
    for sentence in about:
        for value in _numbers(sentence) if question.asked is Asked.NUMBER else _names(sentence):
            if not content(value) <= question.words:
                found[value] = None
    return tuple(found)[:MOST_VALUES]


def answer_values(question: Question, answer: str) -> tuple[str, ...]:
    """The values of an answer that somebody gave: it need not repeat the question."""
    said = WORD.findall(plain(answer)[:2_000])
    if question.asked is Asked.YES_NO:
        if said and said[0] in TRUE | FALSE:
            return ("no" if said[0] in FALSE else "yes",)
        return claims(question, read(answer))
    values_in = _numbers if question.asked is Asked.NUMBER else _names
    found = [value for value in values_in(answer[:READ_CHARS]) if not content(value) <= question.words]
    if not found and said and len(said) <= 6:  # noqa: PLR2004  a short answer in small letters is one value
        found = [" ".join(word for word in said if word not in FUNCTION_WORDS) or said[0]]
    return tuple(dict.fromkeys(found))[:MOST_VALUES]


def same(left: str, right: str) -> bool:
    """Whether two values are one: all words of the shorter stand in the longer."""
    one, other = ({stem(word) for word in WORD.findall(value.lower())} for value in (left, right))
    return bool(one and other) and (one <= other or other <= one)


def _about(question: Question, passage: Read) -> list[str]:
    """The sentences about the question, the nearest first."""
    least = ABOUT * len(question.words)
    if not question.words or len(passage.words & question.words) < least:
        return []
    shared = [(-len(words & question.words), at) for at, (_, words) in enumerate(passage.sentences)]
    return [passage.sentences[at][0] for count, at in sorted(shared) if -count >= least]


def _numbers(sentence: str) -> Iterator[str]:
    for word in WORD.findall(sentence.lower()):
        if word in DIGITS:
            yield DIGITS[word]
    for number in NUMBER.findall(sentence):
        yield number.rstrip(".,").replace(",", "")


def _names(sentence: str) -> Iterator[str]:
    for name in NAME.findall(sentence):
        words = name.split()
        while words and words[0].lower() in FUNCTION_WORDS:
            words = words[1:]
        if words:
            yield " ".join(words).lower().removesuffix("'s")


def _denies(sentence: str) -> bool:
    """Whether a sentence says no: an odd number of denials."""
    return sum(word in DENIALS for word in sentence.replace("\u2019", "'").split()) % 2 == 1
