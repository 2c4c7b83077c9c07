"""Cutting documents into passages."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conclave.retrieval.chunk import PARAGRAPH_CHARS, PASSAGE_CHARS, SMALL_CHARS, chunk

FENCED = "```python\n" + "".join(f"x{i} = {i}\n\n" for i in range(400)) + "```"
TABLE = "| a | b |\n|---|---|\n" + "".join(f"| row {i} | value {i} |\n" for i in range(200))
WORDS = st.text(alphabet="abc .!?\n", min_size=1, max_size=300)
BLOCKS = st.one_of(
    WORDS,
    st.sampled_from(
        ["# One", "## Two", "### Three `code`", "Setext\n======", "> quoted\n> twice", "---", "<div>\nx\n</div>"]
    ),
    st.lists(WORDS, min_size=1, max_size=4).map(lambda lines: "```\n" + "\n".join(lines) + "\n```"),
    st.integers(1, 60).map(lambda n: "| a | b |\n|---|---|\n" + "| cell | another cell of the row |\n" * n),
    st.integers(1, 30).map(lambda n: "\n".join(f"- item {i} of a list\n\n  with a paragraph" for i in range(n))),
)
DOCUMENTS = st.lists(BLOCKS, max_size=12).map("\n\n".join)


@given(st.one_of(st.text(), DOCUMENTS), st.sampled_from(["a.md", "a.txt"]))
@settings(deadline=None, max_examples=150)
def test_a_passage_is_the_slice_of_its_source_that_it_says(text: str, source: str) -> None:
    """Spans are in order, do not overlap, and give the text back character for character."""
    passages = chunk(text, source=source)
    assert all(text[p.start : p.end] == p.text and p.text.strip() for p in passages)
    assert all(one.end <= other.start for one, other in pairwise(passages))


@given(DOCUMENTS)
@settings(deadline=None, max_examples=150)
def test_no_word_of_a_plain_text_is_lost(text: str) -> None:
    passages = chunk(text, source="a.txt")
    assert "".join("".join(p.text for p in passages).split()) == "".join(text.split())


@given(
    st.lists(st.sampled_from(["alpha beta gamma. " * 30, FENCED[:900] + "\n```", "# Title", TABLE[:600]]), max_size=8)
)
@settings(deadline=None, max_examples=60)
def test_no_fence_is_cut(blocks: list[str]) -> None:
    """Each passage holds both ends of every fence in it."""
    passages = chunk("\n\n".join(blocks), source="a.md")
    assert all(len(re.findall(r"^```", p.text, re.MULTILINE)) % 2 == 0 for p in passages)


@pytest.mark.parametrize("block", [FENCED, TABLE.strip()], ids=["fence", "table"])
def test_a_block_longer_than_any_passage_stays_whole(block: str) -> None:
    assert len(block) > PARAGRAPH_CHARS
    passages = chunk(f"# T\n\n{'before ' * 100}\n\n{block}\n\n{'after ' * 200}\n", source="a.md")
    assert sum(block in p.text for p in passages) == 1


def test_a_passage_carries_the_path_of_its_headings() -> None:
    text = "intro\n\n# Configuration\n\none\n\n## `Keys` and *more*\n\ntwo\n\n### Deep\n\nthree\n\n## Limits\n\nfour\n"
    assert [(p.heading, p.text) for p in chunk(text, source="a.md")] == [
        ("", "intro"),
        ("Configuration", "one"),
        ("Configuration > Keys and more", "two"),
        ("Configuration > Keys and more > Deep", "three"),
        ("Configuration > Limits", "four"),
    ]


def test_a_hash_inside_a_fence_is_no_heading() -> None:
    passages = chunk("# T\n\n```sh\n# not a heading\nmake run\n```\n", source="a.md")
    assert [(p.heading, p.text) for p in passages] == [("T", "```sh\n# not a heading\nmake run\n```")]


def test_short_paragraphs_are_joined_and_long_ones_kept_whole() -> None:
    paragraphs = [f"Paragraph {i} " + "word " * 60 + "end." for i in range(20)] + ["long " * 350 + "end."]
    passages = chunk("\n\n".join(paragraphs), source="a.md")
    assert all(any(paragraph in p.text for p in passages) for paragraph in paragraphs)
    assert all(SMALL_CHARS <= len(p.text) <= PASSAGE_CHARS for p in passages[:-1])


@pytest.mark.parametrize(
    "text", ["word " * 5_000, "x" * 20_000, "A sentence of a book. " * 1_000], ids=["words", "letters", "book"]
)
def test_a_text_without_blank_lines_is_cut_all_the_same(text: str) -> None:
    passages = chunk(text, source="a.txt")
    assert all(0 < len(p.text) <= PARAGRAPH_CHARS for p in passages)
    assert "".join(p.text for p in passages).replace(" ", "") == text.replace(" ", "")


def test_what_a_colon_announces_stays_with_it() -> None:
    lead = "word " * 200 + "Start it with:"
    passages = chunk(f"# T\n\n{lead}\n\n```sh\n{'make run # again and again' * 20}\n```\n", source="a.md")
    assert len(passages) == 1


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old"])
def test_each_kind_of_line_end_gives_the_same_passages(newline: str) -> None:
    text = "# T\n\none\ntwo\n\n```\na\n\nb\n```\n\n- x\n- y\n".replace("\n", newline)
    (passage,) = chunk(text, source="a.md")
    assert passage.text.split() == ["one", "two", "```", "a", "b", "```", "-", "x", "-", "y"]
