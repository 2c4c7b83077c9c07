"""What was looked up, as an expert, a client and the record are told of it; and which passages an answer names."""

import json
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.gateway.evidence import (
    LONGEST,
    MOST_TOLD,
    NO_EVIDENCE,
    NOT_SEARCHED,
    PASSAGE_CHARS,
    Citing,
    Evidence,
    KeptAway,
    Searched,
    Shown,
)
from conclave.retrieval.api import Found, Passage, Query, Results, Rights
from conclave.safety.api import Origin

TEXT = "In the tower of Zunelor hang eleven bells."


def passage(number: int = 1, text: str = TEXT, page: int = 0, heading: str = "Bells") -> Passage:
    return Passage(text, f"{number}.md", heading, 5, 5 + len(text), id=f"id{number}", collection="c", page=page)


def shown(*numbers: int) -> Evidence:
    return Evidence(tuple(Shown(number, passage(number), TEXT) for number in numbers))


def cited(evidence: Evidence, *pieces: str) -> list[int]:
    citing = Citing.of(evidence)
    for piece in pieces:
        citing.read(piece)
    return [one["n"] for one in citing.cited()]


@pytest.mark.parametrize(
    ("said", "numbers"),
    [
        ("eleven [1]", [1]),
        ("[2] and [1] and [2]", [1, 2]),
        ("[1][3]", [1, 3]),
        ("[1, 3]", [1, 3]),
        ("[1,2 , 3]", [1, 2, 3]),
        ("[[2]]", [2]),
        ("[ 2 ]", [2]),
        ("[4] [0] [-1] [01x] [] [a]", []),
        ("[1", []),
        ("1]", []),
        ("[²] [\uff11]", []),
        ("[1;2]", []),
        ("[see the first part of it: 1]", []),
        ("![picture](x) [1](y)", [1]),
    ],
)
def test_a_passage_is_cited_by_its_number_in_brackets(said: str, numbers: list[int]) -> None:
    assert cited(shown(1, 2, 3), said) == numbers


PARTS = st.sampled_from(["[1]", "[2, 3]", "[ 1 ]", "[x]", "[4]", "[", "]", " words\n", "[1", "3]", ","])


@given(parts=st.lists(PARTS, max_size=12), cuts=st.lists(st.integers(0, 60), max_size=8))
def test_wherever_a_stream_is_cut_the_citations_are_the_same(parts: list[str], cuts: list[int]) -> None:
    said = "".join(parts)
    edges = [0, *sorted(min(cut, len(said)) for cut in cuts), len(said)]
    pieces = [said[start:end] for start, end in pairwise(edges)]
    assert cited(shown(1, 2, 3), *pieces) == cited(shown(1, 2, 3), *said) == cited(shown(1, 2, 3), said)


def test_an_open_bracket_is_remembered_no_longer_than_numbers_are() -> None:
    citing = Citing.of(shown(1))
    for _ in range(10_000):
        citing.read("[" + "x" * 100)
    assert len(citing._open) <= LONGEST + 1
    citing.read("[" + " " * LONGEST)
    citing.read("1]")
    assert citing.cited() == []


def test_a_citation_says_where_it_stands_and_nothing_of_the_text() -> None:
    [one] = (shown(7).shown[0].cited(),)
    assert one == {
        "n": 7, "id": "id7", "source": "7.md", "heading": "Bells", "start": 5, "end": 5 + len(TEXT), "collection": "c"
    }  # fmt: skip
    assert Shown(1, passage(page=3), TEXT).cited()["page"] == 3


def test_what_was_kept_away_is_told_with_its_reasons_and_bounded() -> None:
    away = tuple(KeptAway(passage(number), ("instruction",)) for number in range(40))
    told = Evidence(kept_away=away).explained()
    assert (told["passages"], len(told["kept_away"])) == (0, MOST_TOLD)
    assert told["kept_away"][0] == {"id": "id0", "source": "0.md", "reasons": ["instruction"]}
    assert TEXT not in json.dumps(told)
    assert NO_EVIDENCE.explained() == {"passages": 0}


def test_a_conflict_is_told_only_where_there_is_one() -> None:
    assert "conflict" not in shown(1).explained()
    told = Evidence(conflict="inter_context", follows="both").explained()
    assert (told["conflict"], told["follows"]) == ("inter_context", "both")


def test_passages_and_what_stands_above_them_are_data_whoever_wrote_them() -> None:
    found = (Found(passage(1, heading="A\nB"), 0.5), Found(passage(2, heading=""), 0.4))
    searched = Searched(Query("x", Rights(None, None)), Results(found, 1, 2))
    assert {one.origin for one in (*searched.segments, *searched.names)} == {Origin.RETRIEVED}
    assert [one.place for one in searched.segments] == ["retrieved[0]", "retrieved[1]"]
    assert [one.text for one in searched.names] == ["1.md, A B", "2.md"]
    assert [one.place for one in searched.names] == ["retrieved[0].heading", "retrieved[1].heading"]
    assert [one.source for one in searched.segments] == ["1.md", "2.md"]
    assert NOT_SEARCHED.segments == NOT_SEARCHED.names == ()


def test_a_passage_from_another_library_is_bounded_and_can_be_written() -> None:
    """A library behind the seam may hold anything: lone surrogates, megabytes, ligatures that grow eighteenfold."""
    for text in ("\ud800 lone", "x" * 10**6, "\ufdfa" * 50_000):
        [one] = Searched(Query("x", Rights(None, None)), Results((Found(passage(1, text), 0.1),), 1, 1)).segments
        assert len(one.text) <= PASSAGE_CHARS
        json.dumps(one.text).encode()
        one.text.encode()
        assert len(one.folded) <= 400_000


def test_random_answers_cite_only_what_was_shown() -> None:
    dice = random.Random(1)
    for _ in range(200):
        said = "".join(dice.choices("[]0123456789,. ab\n", k=dice.randrange(200)))
        assert set(cited(shown(2, 3), said)) <= {2, 3}
