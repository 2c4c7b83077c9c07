"""The two conflicts and their rule, on passages whose values are read by rules."""

import pytest

from conclave.safety.context.claims import answer_values, claims, question_of, same
from conclave.safety.context.conflict import Action, Kind, Memory, weigh
from conclave.safety.context.provenance import Evidence, Trust, one_hand, voices
from conclave.safety.context.words import read

ASKED = "When was the lighthouse of Baldor built?"


def said(year: str, source: str, trust: Trust = Trust.NORMAL) -> Evidence:
    return Evidence(f"The lighthouse of Baldor was built in {year}, page {source} says.", source, source, trust)


@pytest.mark.parametrize(
    ("passages", "memory", "kind", "action"),
    [
        ([said("1873", "a"), said("1873", "b")], None, Kind.NONE, Action.ANSWER),
        ([said("1873", "a")], Memory("1873"), Kind.NONE, Action.ANSWER),
        ([said("1873", "a"), said("1901", "b")], None, Kind.INTER_CONTEXT, Action.BOTH),
        ([said("1873", "a"), said("1873", "b"), said("1901", "c")], None, Kind.INTER_CONTEXT, Action.ANSWER),
        ([said("1873", "a"), said("1901", "b")], Memory("1850"), Kind.BOTH, Action.BOTH),
        ([said("1901", "a"), said("1901", "b")], Memory("1873"), Kind.CONTEXT_MEMORY, Action.MEMORY),
        ([said("1901", "a")], Memory("1873", agreement=0.4), Kind.CONTEXT_MEMORY, Action.FLAG),
        ([said("1901", "a", Trust.TRUSTED)], Memory("1873"), Kind.CONTEXT_MEMORY, Action.ACCEPT),
        ([said("1901", "a"), said("1901", "a"), said("1873", "b")], None, Kind.INTER_CONTEXT, Action.BOTH),
        ([said("1901", "a"), said("1873", "b", Trust.TRUSTED)], None, Kind.INTER_CONTEXT, Action.ANSWER),
        ([Evidence("Herring was landed there.", "a")], Memory("1873"), Kind.NONE, Action.ANSWER),
        ([], Memory("1873"), Kind.NONE, Action.ANSWER),
    ],
    ids=[
        "agree", "agree with memory", "no majority", "majority", "no majority, and memory says a third thing",
        "unanimous against memory", "unanimous against a memory that is not sure", "a trusted source against memory",
        "one source twice is one voice", "trust outweighs", "nothing said", "no passage",
    ],
)  # fmt: skip
def test_the_rule(passages: list[Evidence], memory: Memory | None, kind: Kind, action: Action) -> None:
    found = weigh(ASKED, passages, memory)
    assert (found.kind, found.action) == (kind, action)


def test_strict_abstains_where_it_would_show_both() -> None:
    assert weigh(ASKED, [said("1873", "a"), said("1901", "b")], abstain=True).action is Action.ABSTAIN


@pytest.mark.parametrize(
    ("question", "changes"),
    [("Who is currently mayor of Baldor?", None), ("Who is mayor of Baldor?", True)],
    ids=["by its words", "by the caller's word"],
)
def test_what_changes_with_time_is_accepted_against_memory(question: str, *, changes: bool | None) -> None:
    passages = [Evidence("The mayor of Baldor is Mira Tallen.", "a", "a")]
    assert weigh(question, passages, Memory("Osric Venn"), time_sensitive=changes).action is Action.ACCEPT
    assert weigh(question, passages, Memory("Osric Venn"), time_sensitive=False).action is Action.MEMORY


def test_who_is_outvoted_is_named_by_place() -> None:
    found = weigh(ASKED, [said("1901", "c"), said("1873", "a"), said("1873", "b")])
    assert found.outvoted == {0}
    assert [side.value for side in found.sides] == ["1873", "1901"]


@pytest.mark.parametrize(
    ("question", "text", "values"),
    [
        ("How many bells hang in Baldor?", "In Baldor hang eleven bells.", ("11",)),
        ("How many people live in Baldor?", "In Baldor live 12,400 people.", ("12400",)),
        ("Who built Baldor castle?", "Baldor castle was built by Osric Venn's men.", ("osric venn",)),
        ("Who built Baldor castle?", "Osric Venn liked herring.", ()),
        ("Is Baldor an island?", "Baldor is an island.", ("yes",)),
        ("Is Baldor an island?", "Baldor is not an island.", ("no",)),
        ("Isn't Baldor an island?", "Herring is cheap.", ()),
    ],
)
def test_values_are_read_from_the_sentences_about_the_question(
    question: str, text: str, values: tuple[str, ...]
) -> None:
    assert claims(question_of(question), read(text)) == values


def test_an_answer_need_not_repeat_the_question() -> None:
    assert answer_values(question_of("Is Baldor an island?"), "No, it is not.") == ("no",)
    assert answer_values(question_of("Who built Baldor castle?"), "osric venn") == ("osric venn",)
    assert same("Osric Venn", "venn")
    assert not same("1873", "1901")


def test_one_text_under_two_sources_is_one_voice() -> None:
    assert voices([Evidence("Same  text", "a"), Evidence("same text", "b"), Evidence("other", "c")]) == (0, 0, 2)


@pytest.mark.parametrize(
    ("left", "right", "is_one"),
    [
        (Evidence("x", "a", "1"), Evidence("y", "a", "2"), True),
        (Evidence("x", "a", "1"), Evidence("y", "b", "1"), True),
        (Evidence("x", "a", "1"), Evidence("y", "b", "2"), False),
        (Evidence("x"), Evidence("y"), True),
        (Evidence("x"), Evidence("y", "b", "2"), False),
    ],
    ids=["source", "batch", "neither", "unknown", "one unknown"],
)
def test_whose_hand_it_was(left: Evidence, right: Evidence, *, is_one: bool) -> None:
    assert one_hand(left, right) is is_one


def test_a_passage_about_something_else_of_the_kind_contradicts_nothing() -> None:
    other = Evidence("The lighthouse of Venmik was built in 1901.", "b", "b")
    assert weigh(ASKED, [said("1873", "a"), other]).kind is Kind.NONE
    told = Evidence("The lighthouse was built in 1901.", "b", "b")
    assert [side.value for side in weigh(ASKED, [told]).sides] == ["1901"], "alone it may mean the same one"
