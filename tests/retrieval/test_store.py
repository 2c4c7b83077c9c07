"""Finding passages by words, whatever those words are."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conclave.retrieval.api import Passage
from conclave.retrieval.store import QUERY_TERMS, Store, terms


def passage(text: str, heading: str = "", source: str = "a.md") -> Passage:
    return Passage(text, source, heading, 0, len(text))


PASSAGES = [
    passage("The gateway listens on port 8080 and nothing else.", "Configuration > Server"),
    passage("A key is created once and stored as a hash.", "Configuration > Keys"),
    passage("Set OPENAI_API_KEY and the models of OpenAI are added.", "Experts"),
    passage("Rows are chained; the head is signed. Verifying finds an edit.", "Audit"),
    passage("Das Café öffnet früh. Ключ хранится. 鍵は一度だけ。", "Languages"),
]


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store.in_memory()
    store.add(PASSAGES)
    yield store
    store.close()


HOSTILE = {
    "empty": "",
    "quote": '"',
    "quotes": '"port" OR "key"" NEAR(',
    "operators": "port AND OR NOT NEAR(key, 2) ^key* {title} : port",
    "column": "title : port",
    "minus": "-port + key - -",
    "nul": "port\x00key\x00",
    "megabyte": "port " * 200_000,
    "one huge word": "p" * 1_000_000,
    "huge phrase": "port_" * 100_000 + "key",
    "emoji": "🔑🚪 port 👩‍👩‍👧",
    "surrogate": "port \ud800\udfff \udc00",
    "controls": "port \x01\x02\x03\x04 key\x7f",
    "sql": "'; DROP TABLE passages; --",
    "parentheses": "(" * 5_000 + "port" + ")" * 5_000,
    "stop words": "what is it and why",
    "not words": "?!... --- ***",
    "superscript": "x² ½ ① ﷺ",
}


@pytest.mark.parametrize("query", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_query_is_a_query(store: Store, query: str) -> None:
    """It raises nothing, and an honest query is answered afterwards."""
    assert len(store.search(query)) <= len(PASSAGES)
    assert len(store.matches(query)) <= len(PASSAGES)
    assert store.search("port")[0] == store.search("PORT!")[0]


@given(st.text())
@settings(deadline=None, max_examples=300)
def test_no_text_is_a_syntax_error(query: str) -> None:
    store = Store.in_memory()
    try:
        store.add(PASSAGES)
        assert all(0 <= match.coverage <= 1 and 0 <= match.titled <= 1 for match in store.matches(query))
    finally:
        store.close()


@pytest.mark.parametrize(
    ("query", "heading"),
    [
        ("Which port does it listen to?", "Configuration > Server"),
        ("listening", "Configuration > Server"),
        ("keys", "Configuration > Keys"),
        ("OPENAI_API_KEY", "Experts"),
        ("openai_api_key?", "Experts"),
        ("verified edits", "Audit"),
        ("cafe", "Languages"),
        ("ключ", "Languages"),
        ("server", "Configuration > Server"),
    ],
)
def test_the_passage_that_says_it_comes_first(store: Store, query: str, heading: str) -> None:
    assert store.search(query)[0].heading == heading
    assert store.matches(query)[0].passage.heading == heading


def test_a_found_passage_is_the_one_that_was_added_and_its_score_is_positive(store: Store) -> None:
    found = store.search("signed head")[0]
    assert found.score > 0
    assert (found.text, found.source, found.heading, found.start, found.end) == (
        PASSAGES[3].text,
        "a.md",
        "Audit",
        0,
        len(PASSAGES[3].text),
    )


def test_results_are_ordered_by_score_and_limited(store: Store) -> None:
    found = store.search("key port models rows", limit=3)
    assert len(found) == 3
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)


def test_a_word_in_the_heading_counts_more_than_one_in_the_text() -> None:
    store = Store.in_memory()
    store.add([passage("quota and more words here", "Other"), passage("something else is said here", "Quota")])
    store.add([passage(f"filler number {i}", "Filler") for i in range(10)])
    assert [p.heading for p in store.search("quota")] == ["Quota", "Other"]
    store.close()


def test_coverage_weighs_a_rare_word_more_than_a_common_one(store: Store) -> None:
    """An unknown word is the rarest of all, and never covered."""
    (whole, *_), (half, *_) = store.matches("port"), store.matches("port unicorns")
    assert whole.coverage == 1.0
    assert 0 < half.coverage < 0.5


def test_hits_say_where_the_words_stand(store: Store) -> None:
    best = store.matches("Which edits does verifying of a row show?")[0]
    words = {best.passage.text[hit.at :].split()[0].strip("."): hit.term for hit in best.hits}
    assert words == {"Rows": "row", "Verifying": "verifying", "edit": "edits"}


@pytest.mark.parametrize("text", ["\x02 port \x03 and \x03port\x02", "\x02\x02port", "\x03port\x03\x02"])
def test_the_marks_of_hits_in_a_text_do_no_harm(text: str) -> None:
    store = Store.in_memory()
    store.add([passage(text)])
    (best,) = store.matches("port")
    assert [best.passage.text[hit.at :][:4] for hit in best.hits] == ["port"] * text.count("port")
    assert len(best.passage.text) == len(text)
    store.close()


def test_a_long_question_is_cut_to_its_first_terms() -> None:
    assert len(terms(" ".join(f"term{i}" for i in range(500)))) == QUERY_TERMS


def test_a_file_keeps_what_was_added(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "index.db")
    store.add(PASSAGES)
    store.close()
    again = Store.open(tmp_path / "index.db")
    assert len(again) == len(PASSAGES)
    assert not again.is_quick("port")
    assert again.search("port")[0].heading == "Configuration > Server"
    again.close()


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        Store.open(tmp_path / "index.db")


def test_threads_get_the_answers_that_one_thread_gets(store: Store) -> None:
    queries = ["port", "key", "OPENAI_API_KEY", "signed rows"] * 25
    alone = [store.matches(query) for query in queries]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(store.matches, queries)) == alone


def test_a_short_question_to_a_small_index_in_memory_is_quick(store: Store) -> None:
    store.add([passage("word " * 4_000, str(i)) for i in range(10)])
    assert store.is_quick("Which port does it listen on?")
    assert not store.is_quick("port key models rows chain head edit hash")
    store.add([passage("word " * 10_000, str(i)) for i in range(100)])
    assert not store.is_quick("port")
