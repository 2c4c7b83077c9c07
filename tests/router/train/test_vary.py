"""Disturbances: seeded, harmless for any text, and as people disturb text."""

from random import Random

import pytest

from conclave.router.train.vary import (
    behead,
    casing,
    chatter,
    disturb,
    emoji,
    learner,
    markup,
    shorten,
    spacing,
    typos,
)


def test_typos_change_letters_but_not_the_length_by_much() -> None:
    text = "please explain how a transformer works " * 10
    changed = typos(text, Random(0), rate=0.05)
    assert changed != text
    assert abs(len(changed) - len(text)) < len(text) * 0.1


@pytest.mark.parametrize("text", ["", "a", "?", "ÄÖ", "\ud800"], ids=["empty", "a", "mark", "umlauts", "surrogate"])
def test_any_text_can_be_disturbed(text: str) -> None:
    for seed in range(60):
        disturb(text, Random(seed))


def test_the_same_draw_disturbs_alike() -> None:
    text = "Which of these is a prime number, and why is the other one not?"
    assert [disturb(text, Random(seed)) for seed in range(30)] == [disturb(text, Random(seed)) for seed in range(30)]


def test_shortening_an_examination_question_drops_its_options() -> None:
    assert shorten("Which is it?\nA. one\nB. two\nAnswer:", Random(0)) == "Which is it?"


def test_casing_keeps_the_words() -> None:
    assert {casing("Some Words", Random(seed)).lower() for seed in range(9)} == {"some words"}


@pytest.mark.parametrize("change", [chatter, emoji], ids=["chatter", "emoji"])
def test_what_is_put_around_a_text_leaves_it_whole(change: object) -> None:
    assert callable(change)
    assert all("the request itself" in change("the request itself", Random(seed)) for seed in range(30))


def test_markup_and_spacing_lose_no_letter() -> None:
    """Headings may be added; letters of the text stay in their order."""
    text = "Read this. Then answer, please."
    for seed in range(40):
        for change in (markup, spacing):
            letters = iter(character for character in change(text, Random(seed)) if character.isalpha())
            assert all(letter in letters for letter in text if letter.isalpha())


def test_a_learner_drops_articles() -> None:
    assert "the" not in learner("the cat saw the dog and the bird on the roof of the house", Random(1)).split()[:1]
    assert len(learner("the cat and the dog and the bird", Random(3))) < len("the cat and the dog and the bird")


def test_beheading_keeps_the_end_and_short_texts() -> None:
    text = " ".join(f"w{number}" for number in range(30))
    assert text.endswith(behead(text, Random(0)))
    assert behead(text, Random(0)) != text
    assert behead("too short to lose", Random(0)) == "too short to lose"
