"""The generated corpus: seeded, complete, and disturbed as people disturb text."""

from collections import Counter
from random import Random

import pytest

from conclave.router.classify import Router
from conclave.router.train.corpus import NOISE_SOURCE, SOURCE, chat_rows, fill
from conclave.router.train.vary import casing, disturb, shorten, typos

FEW = 60


def test_the_same_seed_gives_the_same_rows() -> None:
    assert list(chat_rows(1, FEW)) == list(chat_rows(1, FEW))
    assert list(chat_rows(1, FEW)) != list(chat_rows(2, FEW))


def test_every_category_of_the_router_has_as_many_prompts(shipped: Router) -> None:
    rows = [row for row in chat_rows(1, FEW) if row.source == SOURCE]
    assert Counter(row.category for row in rows) == dict.fromkeys(shipped.categories, FEW)


def test_noise_stands_under_every_label_alike() -> None:
    """So that a text which says nothing decides nothing."""
    counts = Counter(row.category for row in chat_rows(1, 200) if row.source == NOISE_SOURCE)
    assert len(set(counts.values())) == 1


def test_templates_leave_no_slot_or_alternative_unfilled() -> None:
    known = ("<topic>", "<name>", "<n>", "<big>", "<passage>", "<foreign>", "<lang>", "<request>", "|}")
    assert not [
        row.text for row in chat_rows(3, 300) if row.source == SOURCE and any(mark in row.text for mark in known)
    ]


def test_alternatives_and_slots_nest_and_unknown_marks_stay() -> None:
    text = fill("{a|a} <x> <vector>", {"x": ["b <y>"], "y": ["c"]}, Random(0))
    assert text == "a b c <vector>"


def test_typos_change_letters_but_not_the_length_by_much() -> None:
    text = "please explain how a transformer works " * 10
    changed = typos(text, Random(0), rate=0.05)
    assert changed != text
    assert abs(len(changed) - len(text)) < len(text) * 0.1


@pytest.mark.parametrize("text", ["", "a", "?", "ÄÖ", "\ud800"], ids=["empty", "a", "mark", "umlauts", "surrogate"])
def test_any_text_can_be_disturbed(text: str) -> None:
    for seed in range(20):
        disturb(text, Random(seed))


def test_shortening_an_examination_question_drops_its_options() -> None:
    assert shorten("Which is it?\nA. one\nB. two\nAnswer:", Random(0)) == "Which is it?"


def test_casing_keeps_the_words() -> None:
    assert {casing("Some Words", Random(seed)).lower() for seed in range(9)} == {"some words"}
