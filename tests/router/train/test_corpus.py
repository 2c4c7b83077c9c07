"""The generated corpus: seeded, complete, without a slip in its templates, and no copy of the shared data."""

import gzip
import json
import os
import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from conclave.router.classify import Router
from conclave.router.train.corpus import (
    NOISE_SOURCE,
    SOURCE,
    TEMPLATES,
    Theme,
    chat_rows,
    fill,
    lines,
    options,
    options_of,
    read_frames,
    read_themes,
)

FEW = 60
LEAST_TEMPLATES = 60  # of a category, each with alternatives and slots; at least as many values again
LEAST_ITEMS = 10
LEAST_VALUES = 200
SAYING = 6  # words: shorter prompts ("good night") are anybody's
DATA = os.environ.get("CONCLAVE_DATA")
THEMES = read_themes()
each_theme = pytest.mark.parametrize("theme", THEMES, ids=[theme.category for theme in THEMES])


def everything(theme: Theme) -> list[str]:
    """All texts of a category that may hold slots."""
    values = [value for held in theme.slots.values() for value in held]
    return [*theme.templates, *theme.exam, *theme.facts, *theme.topic, *values]


def words(text: str) -> str:
    """A text without its case and blanks, for comparison."""
    return " ".join(text.lower().split())


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


def test_hardly_any_prompt_is_drawn_twice() -> None:
    texts = [row.text for row in chat_rows(4, 500) if row.source == SOURCE]
    assert len(set(texts)) > 0.97 * len(texts)


@each_theme
def test_a_category_has_many_templates_and_values(theme: Theme) -> None:
    values = sum(map(len, theme.slots.values())) + len(theme.topic) + len(theme.facts)
    assert len(set(theme.templates)) >= LEAST_TEMPLATES
    assert len(set(theme.exam)) >= LEAST_ITEMS
    assert values >= LEAST_VALUES


@each_theme
def test_a_category_has_every_shape(theme: Theme) -> None:
    """So that a shape decides nothing: short and long, one line and many, questions, options, earlier turns."""
    draws = [row.text for row in chat_rows(6, 400) if row.category == theme.category and row.source == SOURCE]
    shapes = {
        "a few words": sum(len(text.split()) <= 4 for text in draws),
        "a page": sum(len(text) > 1000 for text in draws),
        "several lines": sum("\n" in text for text in draws),
        "a question": sum(text.rstrip().endswith("?") for text in draws),
        "no question": sum("?" not in text for text in draws),
        "options": sum(bool(re.search(r"(?m)^\(?[Aa1][.):]", text)) for text in draws),
        "an earlier turn": sum(bool(re.search(r"(?i)assistant:|chatgpt:", text)) for text in draws),
        "typing in lower case": sum(text == text.lower() for text in draws),
    }
    assert not [shape for shape, found in shapes.items() if not found], shapes


@each_theme
def test_a_category_repeats_no_template(theme: Theme) -> None:
    counts = Counter(words(template) for template in [*theme.templates, *theme.exam])
    repeated = {template for template, count in counts.items() if count > 1}
    assert not repeated - {"<foreign>", "<foreign> <foreign>"}  # whole prompts, and so drawn more often


@each_theme
def test_a_category_names_no_unknown_slot(theme: Theme) -> None:
    frames = read_frames()
    pools = {"topic", "fact", "anytopic", "anyfact", "anytext", "longtext"}
    known = {*frames.slots, *theme.slots, *pools}
    code = {"script", "int", "button", "id", "module", "string", "u8"}  # type parameters and HTML in pasted code
    named = {slot for text in everything(theme) for slot in re.findall(r"<([a-z]+)\d?>", text)}
    assert not named - known - code


@each_theme
def test_an_examination_item_has_a_question_and_different_options(theme: Theme) -> None:
    for item in theme.exam:
        assert item.partition(" || ")[0].strip()
        assert len(set(options_of(item))) == len(options_of(item)) >= 2, item


@each_theme
def test_marks_of_the_syntax_are_balanced(theme: Theme) -> None:
    assert not [text for text in [*theme.templates, *theme.exam] if text.count("{") != text.count("}")]


def test_prompts_leave_no_slot_or_alternative_unfilled() -> None:
    frames = read_frames()
    known = {*frames.slots, "topic", "fact", "anytopic", "anyfact", "anytext", "longtext", "request", "question"}
    known |= {"options", "pages", "earlier", "answer", "passage", "foreign", "tongue", "story", "clause"}
    marks = re.compile(f"<(?:{'|'.join(sorted(known))})\\d?>")
    texts = [row.text for row in chat_rows(3, 300) if row.source == SOURCE]
    assert not [text for text in texts if marks.search(text) or "|}" in text]


def test_files_hold_a_category_each_and_nothing_else() -> None:
    files = [file for file in TEMPLATES.glob("*") if file.name != "frames.yaml"]
    assert {file.suffix for file in files} == {".yaml"}
    assert all(any(file.name.startswith(theme.category) for theme in THEMES) for file in files)


@pytest.mark.skipif(DATA is None, reason="needs CONCLAVE_DATA, the folder of the shared data")
def test_no_template_and_no_prompt_is_a_text_of_the_shared_data() -> None:
    """What is measured on those files would otherwise be a memory of them."""
    shared: set[str] = set()
    for name in ("category_train", "category_dev"):
        with gzip.open(Path(str(DATA)) / f"{name}.jsonl.gz", "rb") as held:
            shared.update(words(json.loads(line)["text"]) for line in held)
    ours = [row.text for row in chat_rows(20261122, 1000) if row.source == SOURCE]
    ours += [text for theme in THEMES for text in everything(theme)]
    copies = {words(text) for text in ours} & shared
    assert not {text for text in copies if len(text.split()) >= SAYING}


def test_a_block_is_a_list_of_its_lines_without_headings() -> None:
    assert lines("## contracts\none\\ntwo\n\n  three \n") == ["one\ntwo", "three"]
    assert lines(["as it is "]) == ["as it is "]


def test_alternatives_and_slots_nest_and_unknown_marks_stay() -> None:
    text = fill("{a|a} <x> <vector>", {"x": ["b <y>"], "y": ["c"]}, Random(0))
    assert text == "a b c <vector>"


def test_braces_without_a_bar_are_text() -> None:
    assert fill("{$\\frac{1}{2}$} {x|x}", {}, Random(0)) == "{$\\frac{1}{2}$} x"


def test_a_numbered_slot_keeps_its_value_and_differs_from_the_others() -> None:
    text = fill("<x1> <x2> <x1> <x2>", {"x": ["a", "b"]}, Random(0))
    assert text in {"a b a b", "b a b a"}


def test_options_are_shuffled_and_none_is_lost() -> None:
    orders = {tuple(options(["a", "b", "c"], [], Random(seed))) for seed in range(40)}
    assert len(orders) == 6
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)


def test_options_of_neighbours_make_ten_at_most() -> None:
    neighbours = ["q || 1 ; 2 ; 3 ; 4 ; 5 ; 6", "q || 7 ; 8 ; 9 ; 10", "q || 11 ; 12 ; 13"]
    sizes = {len(options(["a", "b", "c", "d"], neighbours, Random(seed))) for seed in range(60)}
    assert sizes == {4, 10}
