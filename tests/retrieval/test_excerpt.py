"""Which part of a passage is quoted."""

from conclave.retrieval.api import Match, Passage
from conclave.retrieval.excerpt import CODE_CHARS, QUOTE_CHARS, excerpt
from conclave.retrieval.store import Store

PADDING = "\n\n".join(
    f"Padding number {i} speaks about the weather at some length and nothing else at all." for i in range(9)
)


def matched(text: str, question: str) -> Match:
    """The match of a text in an index of its own, where a second passage makes weights differ."""
    store = Store.in_memory()
    store.add([Passage(text, "a.md", "", 0, len(text)), Passage("something else", "b.md", "", 0, 14)])
    (match,) = store.matches(question)
    store.close()
    return match


def test_a_short_passage_is_quoted_whole() -> None:
    assert excerpt(matched("One thing. Another thing.\n\nA third: mango.", "mango")) == (
        "One thing. Another thing.\n\nA third: mango."
    )


def test_the_paragraph_that_answers_is_quoted() -> None:
    text = f"{PADDING}\n\nThe mango is sweet.\n\n{PADDING}"
    assert excerpt(matched(text, "Is a mango sweet?")) == "The mango is sweet."


def test_code_comes_whole_and_with_what_announces_it() -> None:
    code = "```sh\nmango peel\n\nmango cut\n```"
    text = f"{PADDING}\n\nDo it like this:\n\n{code}\n\n{PADDING}"
    assert excerpt(matched(text, "mango peel")) == f"Do it like this:\n\n{code}"


def test_a_sentence_that_announces_code_brings_it_along() -> None:
    text = f"{PADDING}\n\nTo eat a mango, type:\n\n```sh\nmake run\n```\n\n{PADDING}"
    assert excerpt(matched(text, "eat mango")) == "To eat a mango, type:\n\n```sh\nmake run\n```"


def test_monstrous_code_loses_its_end_but_not_its_fence() -> None:
    code = "```sh\n" + "mango and more of it\n" * 1_000 + "```"
    quoted = excerpt(matched(f"{PADDING}\n\n{code}", "mango"))
    assert len(quoted) < CODE_CHARS + 20
    assert quoted.endswith("mango and more of it\n…\n```")


def test_of_a_long_table_the_head_and_the_rows_that_answer_are_quoted() -> None:
    rows = [f"| setting_{i} | meaning of this one |" for i in range(60)]
    rows[30] = "| port | where the mango listens |"
    quoted = excerpt(matched("| setting | meaning |\n|---|---|\n" + "\n".join(rows), "mango port"))
    assert quoted == "| setting | meaning |\n|---|---|\n| port | where the mango listens |"


def test_of_a_long_paragraph_the_sentences_that_answer_are_quoted() -> None:
    text = PADDING.replace("\n\n", " ") + " The mango is sweet. It is eaten ripe. " + PADDING.replace("\n\n", " ")
    quoted = excerpt(matched(text, "sweet mango"))
    assert quoted.startswith("The mango is sweet. It is eaten ripe.")
    assert quoted in text
    assert len(quoted) <= QUOTE_CHARS


def test_an_empty_line_in_a_fence_does_not_end_it() -> None:
    code = "~~~\nfirst\n\n```\n\nmango\n~~~"
    assert excerpt(matched(f"{PADDING}\n\n{code}\n\n{PADDING}", "mango")) == code
