"""How much of a question stands in what was found: rare words count most, and unknown ones are never covered."""

import pytest

from conclave.retrieval.api import OWNER, Encode, Passage, Query, Trust
from conclave.retrieval.coverage import BEST, covered
from conclave.retrieval.index import Snapshots
from conclave.retrieval.ingest import freshen
from conclave.retrieval.library import Entry, Library
from conclave.retrieval.search import Hybrid

STEMS = {"tower": 50, "bell": 50, "zunelor": 1}


def test_a_passage_with_every_word_covers_all_and_one_with_none_nothing() -> None:
    assert covered(STEMS, ["The bells of the tower of Zunelor"], passages=100) == pytest.approx(1.0)
    assert covered(STEMS, ["A harbour"], passages=100) == 0
    assert covered(STEMS, [], passages=100) == 0
    assert covered({}, ["anything"], passages=100) == 0


def test_a_rare_word_counts_more_than_a_common_one() -> None:
    rare = covered(STEMS, ["Zunelor"], passages=100)
    common = covered(STEMS, ["tower bell"], passages=100)
    assert rare > 0.5 > common > 0


def test_a_word_that_no_document_has_is_what_is_missing_most() -> None:
    known = covered({"tower": 50, "zunelor": 1}, ["the tower"], passages=100)
    unknown = covered({"tower": 50, "qwerty": 0}, ["the tower"], passages=100)
    assert unknown < known


@pytest.mark.parametrize("form", ["bell", "bells", "Bells,", "(bells)", "BELLS"])
def test_a_word_is_covered_in_any_form(form: str) -> None:
    assert covered({"bell": 1}, [f"seven {form} hang"], passages=10) == pytest.approx(1.0)


@pytest.mark.parametrize("other", ["belligerently", "ell", "cowbell"])
def test_another_word_is_not_the_word(other: str) -> None:
    assert covered({"bell": 1}, [other], passages=10) == 0


def test_one_passage_must_hold_it_and_only_the_best_are_looked_at() -> None:
    halves = covered(STEMS, ["tower bell", "zunelor"], passages=100)
    assert halves < covered(STEMS, ["tower bell zunelor"], passages=100)
    far = ["nothing"] * BEST + ["tower bell zunelor"]
    assert covered(STEMS, far, passages=100) == 0


def test_counts_that_do_not_fit_each_other_break_nothing() -> None:
    """A library that was changed meanwhile: more holders than passages."""
    assert 0 <= covered({"tower": 500, "bell": 0}, ["tower"], passages=3) <= 1


def test_a_search_says_it_and_closed_passages_are_not_in_it(library: Library, encode: Encode) -> None:
    for path, text, acl in (("open", "river stone", ()), ("closed", "river stone quartz", ("hr",))):
        passage = Passage(text, path, "", 0, len(text))
        with library.writing():
            library.put(
                Entry("a", path, path, acl, "", len(text), "b", "1", Trust.NORMAL, "", [passage], encode([text]))
            )
    snapshots = Snapshots(library.folder)
    freshen(library, snapshots, encode)
    search = Hybrid(library, encode, snapshots)
    owner = search.search(Query("river stone quartz", OWNER)).coverage
    anyone = search.search(Query("river stone quartz", type(OWNER)(None, frozenset()))).coverage
    assert owner == pytest.approx(1.0)
    assert anyone is not None
    assert 0 < anyone < 1
