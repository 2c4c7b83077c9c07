"""A topic is known by its examples; what lies as far out as nearly all other texts do not is taken for it."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from conclave.safety.api import WRITTEN, Finding, Origin, Segment, View
from conclave.safety.detect.topics import MOST_WINDOWS, WINDOW_CHARS, Space, TopicError, TopicsCheck, windows

WORDS = ("bet", "horse", "casino", "sea", "ship", "sail", "the", "a", "is", "of", "bread", "code")


def encode(texts: Sequence[str]) -> NDArray[np.float32]:
    """A toy encoder: how often each word stands in a text, to length 1."""
    vectors = np.array([[text.lower().split().count(word) for word in WORDS] for text in texts], dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def space() -> Space:
    """Two thousand texts of a few words each; one in fifty happens to speak of bets."""
    draw = np.random.default_rng(1)
    plain = [" ".join(draw.choice(WORDS[3:], size=6)) for _ in range(1960)]
    odd = [" ".join(draw.choice(WORDS, size=6)) for _ in range(40)]
    return Space(encode, encode([*plain, *odd]).astype(np.float16))


BETS = [f"{one} {two} the {three}" for one in ("bet", "horse") for two in ("casino", "bet") for three in ("bet", "is")]
SHIPS = [f"{one} {two} the {three}" for one in ("sea", "ship") for two in ("sail", "sea") for three in ("a", "is")]
CHECK = TopicsCheck(space(), deny={"gambling": BETS}, allow_only={})


def found_in(check: TopicsCheck, text: str, origin: Origin = Origin.USER) -> list[Finding]:
    segment = Segment(origin, text, text, "messages[0].content")
    return list(check.inspect(View(segment, WRITTEN, text, 0, len(text))))


def test_a_denied_topic_is_found_and_named() -> None:
    [found] = found_in(CHECK, "is the horse a bet of the casino")
    assert (found.check, found.kind, found.start, found.end) == ("topics", "topic.gambling", 0, 32)


def test_a_neighbour_that_shares_a_word_passes() -> None:
    assert found_in(CHECK, "the bread is a horse of the sea is the code") == []
    assert found_in(CHECK, "the ship is a code") == []


def test_about_one_in_a_hundred_other_texts_is_taken_for_it() -> None:
    draw = np.random.default_rng(2)
    texts = [" ".join(draw.choice(WORDS[3:], size=6)) for _ in range(980)]
    texts += [" ".join(draw.choice(WORDS, size=6)) for _ in range(20)]
    assert sum(bool(found_in(CHECK, text)) for text in texts) <= 20


def test_a_topic_in_the_middle_of_a_long_text_is_not_watered_down() -> None:
    filler = "the bread is a code of " * 200
    assert found_in(CHECK, filler) == []
    assert found_in(CHECK, f"{filler} bet horse casino bet the casino bet horse " + "bet horse casino " * 20 + filler)


def test_what_is_about_none_of_the_allowed_topics_is_off_scope() -> None:
    check = TopicsCheck(space(), deny={}, allow_only={"sailing": SHIPS})
    assert found_in(check, "sea sail the ship sail sea") == []
    assert [one.kind for one in found_in(check, "the bread is a code")] == ["topic.off_scope"]


def test_a_text_without_a_known_word_is_about_nothing() -> None:
    check = TopicsCheck(space(), deny={"gambling": BETS}, allow_only={"sailing": SHIPS})
    for text in ("", "zzz", "\ud800", "\x00" * 1000):
        assert found_in(check, text) == []


def test_without_a_topic_nothing_is_found() -> None:
    assert found_in(TopicsCheck(space(), deny={}, allow_only={}), "bet horse casino") == []


def test_only_users_are_asked_what_they_talk_about() -> None:
    assert (CHECK.origins, CHECK.decodes, CHECK.name) == ({Origin.USER}, False, "topics")


@pytest.mark.parametrize(
    ("examples", "complaint"),
    [(BETS[:7], "7 different examples"), ([BETS[0]] * 9, "1 different"), ([*BETS, "zzz"], "no word that is known")],
    ids=["too few", "all the same", "an unknown word"],
)
def test_what_teaches_nothing_is_refused(examples: list[str], complaint: str) -> None:
    with pytest.raises(TopicError, match=complaint) as caught:
        TopicsCheck(space(), deny={"gambling": examples}, allow_only={})
    assert caught.value.topic == "gambling"


@pytest.mark.parametrize("size", [0, 1, 599, 600, 601, 5_000, 1_000_000])
def test_windows_are_few_and_cover_a_text(size: int) -> None:
    text = ("abcd " * (size // 5 + 1))[:size]
    pieces = windows(text)
    assert 1 <= len(pieces) <= MOST_WINDOWS
    assert all(len(piece) <= WINDOW_CHARS for piece in pieces)
    assert pieces[-1] == text[-len(pieces[-1]) :] or not text
    if size <= 5_000:
        assert sum(map(len, pieces)) >= size
