"""Training: the same rows give the same bytes, and what is written can be loaded."""

from pathlib import Path
from shutil import copy

import pytest

pytest.importorskip("scipy", reason="training needs the `train` extra")

from conclave.router.classify import CLASSIFIER_FILES, Router
from conclave.router.encoder import ARTIFACTS, ENCODER_FILES
from conclave.router.train.fit import OWN_SOURCES, source_folds
from conclave.router.train.rows import Row, row_weights
from conclave.router.train.run import sample, write

ROWS = [
    Row(f"{start} {word} {number}", category, source)
    for category, word in (("code", "python function"), ("law", "court contract"), ("math", "equation sum"))
    for source, start in (("exam", "Which"), ("chat", "tell me about"), ("forum", "hello, my"))
    for number in range(6)
]


def trained(folder: Path) -> bytes:
    folder.mkdir()
    for name in ENCODER_FILES:
        copy(ARTIFACTS / name, folder)
    said: list[str] = []
    write(ROWS, folder, trained_on={"rows": "none"}, say=said.append)
    assert any("unseen source chat" in line for line in said)
    return b"".join((folder / name).read_bytes() for name in CLASSIFIER_FILES)


def test_training_twice_gives_the_same_bytes_and_a_router_that_works(tmp_path: Path) -> None:
    assert trained(tmp_path / "one") == trained(tmp_path / "two")
    router = Router.load(tmp_path / "one")
    assert router.categories == ("code", "law", "math")
    assert router.classify("a python function, please").category == "code"


def test_a_source_is_never_in_two_folds_and_ours_is_in_none() -> None:
    folds = source_folds([*ROWS, Row("x", "code", "conclave_chat")])
    assert sorted(name for fold in folds for name in fold) == ["chat", "exam", "forum"]
    assert not OWN_SOURCES & frozenset().union(*folds)


def test_categories_weigh_alike_however_many_rows_they_have() -> None:
    rows = [Row("a", "code", "one")] * 90 + [Row("b", "law", "two")] * 10
    weights = row_weights(rows)
    assert sum(weights[:90]) == pytest.approx(sum(weights[90:]))
    assert sum(weights) == pytest.approx(len(rows))


def test_a_large_source_counts_less_a_row_than_a_small_one() -> None:
    rows = [Row("a", "code", "large")] * 100 + [Row("b", "code", "small")] * 4
    weights = row_weights(rows)
    assert weights[0] < weights[-1]


def test_a_cell_is_sampled_down_and_some_rows_get_a_disturbed_copy() -> None:
    chosen = sample(iter([Row(f"text number {number} of many", "code", "one") for number in range(50)]), cell_rows=20)
    assert len(chosen) > 20
    assert len({row.text for row in chosen[:20]}) == 20
