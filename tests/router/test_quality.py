"""The quality head: it finds which expert a question suits, says nothing of what it cannot know, and is fast."""

import time
from dataclasses import replace
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from conclave.router.api import Classification
from conclave.router.cues import CUES, cues
from conclave.router.evaluate.fitted import CARD_FILE, SCORES_FILE, Made, fit_to
from conclave.router.outcomes import Graded
from conclave.router.quality import QUALITY_FILES, Quality, quality_digest

TOPICS = {
    "cooking": "oven butter flour recipe dough bake sugar salt pan kitchen",
    "sailing": "boat wind sail harbour anchor mast rope tide deck wave",
    "chess": "knight bishop rook pawn opening checkmate board endgame castle queen",
}
GOOD_AT = {"cook": "cooking", "sailor": "sailing"}
UNSURE = Classification("math", 0.1, True, {"math": 0.1, "law": 0.1})
HOSTILE = {
    "empty": "",
    "blank": " \n\t ",
    "one character": "x",
    "surrogate": "\ud800",
    "binary": "".join(map(chr, range(256))) * 20,
    "other script": "为什么天空是蓝色的" * 50,
    "options alone": "\nA. \nB. \nC. " * 200,
    "1 MB": "boat wind " * 100_000,
}


def planted(count: int, seed: int, *, gain: float = 0.6) -> list[Graded]:
    """Each expert is right `gain` more often on its own topic; the third topic is nobody's."""
    draw = Random(seed)
    rows = []
    for number in range(count):
        topic = draw.choice(sorted(TOPICS))
        text = " ".join(draw.choices(TOPICS[topic].split(), k=8))
        right = {name: float(draw.random() < 0.3 + gain * (own == topic)) for name, own in GOOD_AT.items()}
        rows.append(Graded(f"{text}, {draw.randrange(999)}?", right, name=str(number), subset=topic))
    return rows


def fitted(folder: Path, rows: list[Graded]) -> Made:
    (folder / "rows.jsonl").write_bytes(msgspec.json.encode([row.name for row in rows]))
    return fit_to(rows, [folder / "rows.jsonl"], folder / "head", apart=False, say=str.strip)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return fitted(tmp_path_factory.mktemp("quality"), planted(1200, 1))


@pytest.fixture(scope="module")
def head(made: Made) -> Quality:
    return Quality.load(Path(made.folder))


def test_the_head_asks_each_expert_what_it_is_good_at(head: Quality) -> None:
    rows = planted(300, 2)
    right = best = 0.0
    for row in rows:
        expected = head.expected(row.prompt, UNSURE)
        right += row.scores[max(expected, key=expected.__getitem__)]
        best += row.scores["cook"]
        own = {name for name, topic in GOOD_AT.items() if topic == row.subset}
        assert not own or max(expected, key=expected.__getitem__) in own
    assert right / len(rows) > best / len(rows) + 0.1


def test_expected_scores_are_about_the_scores(head: Quality) -> None:
    for topic, words in TOPICS.items():
        expected = head.expected(words, UNSURE)
        for name, own in GOOD_AT.items():
            assert expected[name] == pytest.approx(0.9 if own == topic else 0.3, abs=0.15)


def test_the_advice_is_that_routing_pays_where_it_does(made: Made) -> None:
    assert made.gain.low > 0.1
    assert made.advice.startswith("routing pays here")
    assert made.judged == 300


def test_the_advice_is_that_routing_does_not_pay_where_nothing_is_planted(tmp_path: Path) -> None:
    made = fitted(tmp_path, planted(400, 4, gain=0.0))
    assert made.gain.low <= 0
    assert made.advice.startswith("routing does not pay here")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_every_text_gets_scores_within_bounds(head: Quality, text: str) -> None:
    expected = head.expected(text, UNSURE)
    assert list(expected) == ["cook", "sailor"]
    assert all(0 <= score <= 1 for score in expected.values())


def test_a_classification_of_other_categories_is_taken(head: Quality) -> None:
    expected = head.expected("boat wind", Classification("mine", 1.0, False, {"mine": 1.0}))
    assert expected["sailor"] > expected["cook"]


def test_reading_that_the_classifier_did_is_the_same(head: Quality, shipped) -> None:  # type: ignore[no-untyped-def]
    for row in planted(20, 5):
        assert head.expected(row.prompt, UNSURE, shipped.read(row.prompt)) == head.expected(row.prompt, UNSURE)


def test_the_same_rows_give_the_same_files(tmp_path: Path) -> None:
    rows = planted(240, 6)
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        digests.append(fitted(tmp_path / name, rows).sha256)
    assert digests[0] == digests[1] == quality_digest(tmp_path / "one" / "head")


def test_what_is_written_says_what_it_is(made: Made) -> None:
    folder = Path(made.folder)
    scores = msgspec.json.decode((folder / SCORES_FILE).read_bytes())
    assert set(scores["any"]["cook"]) == {"score", "error", "rows"}
    card = (folder / CARD_FILE).read_text()
    assert made.advice in card
    assert "must not be used" in card


def test_a_row_that_lacks_an_expert_teaches_the_others(tmp_path: Path) -> None:
    rows = [
        row if number % 3 else Graded(row.prompt, {"cook": row.scores["cook"]}, name=row.name, subset=row.subset)
        for number, row in enumerate(planted(900, 7))
    ]
    expected = Quality.load(Path(fitted(tmp_path, rows).folder)).expected(TOPICS["sailing"], UNSURE)
    assert expected["sailor"] > expected["cook"] + 0.2


@pytest.mark.parametrize("apart", [True, False], ids=["apart", "no topic named"])
def test_a_head_without_topics_still_knows_the_words(tmp_path: Path, *, apart: bool) -> None:
    rows = planted(900, 10) if apart else [replace(row, subset=None) for row in planted(900, 10)]
    (tmp_path / "rows.jsonl").write_bytes(b"")
    made = fit_to(rows, [tmp_path / "rows.jsonl"], tmp_path / "head", apart=apart, say=str.strip)
    head = Quality.load(Path(made.folder))
    assert head.about.topics == ()
    expected = head.expected(TOPICS["sailing"], UNSURE)
    assert expected["sailor"] > expected["cook"]


def test_too_few_rows_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 200 rows and 2 experts"):
        fitted(tmp_path, planted(50, 8))


def test_a_head_for_other_features_is_refused(tmp_path: Path, made: Made) -> None:
    for name in QUALITY_FILES:
        data = (Path(made.folder) / name).read_bytes()
        (tmp_path / name).write_bytes(data.replace(b"cues/1", b"cues/0"))
    with pytest.raises(ValueError, match="run `conclave router fit` again"):
        Quality.load(tmp_path)


def test_a_head_that_lacks_a_tensor_is_refused(tmp_path: Path, made: Made) -> None:
    (tmp_path / QUALITY_FILES[1]).write_bytes((Path(made.folder) / QUALITY_FILES[1]).read_bytes())
    save_file({"mean": np.zeros(2, dtype=np.float32)}, tmp_path / QUALITY_FILES[0])
    with pytest.raises(ValueError, match="lacks seen"):
        Quality.load(tmp_path)


def test_a_changed_file_changes_the_digest(tmp_path: Path, made: Made) -> None:
    for name in QUALITY_FILES:
        (tmp_path / name).write_bytes((Path(made.folder) / name).read_bytes())
    assert quality_digest(tmp_path) == made.sha256
    (tmp_path / QUALITY_FILES[1]).write_bytes(b"{}")
    assert quality_digest(tmp_path) != made.sha256


def test_a_question_costs_a_fraction_of_a_millisecond(head: Quality, shipped) -> None:  # type: ignore[no-untyped-def]
    """The median of many, and a bound ten times above what is measured on a quiet machine (docs/router.md)."""
    text = planted(1, 9)[0].prompt * 7
    read = shipped.read(text)
    spent = []
    for _ in range(200):
        started = time.perf_counter()
        head.expected(text, UNSURE, read)
        spent.append(time.perf_counter() - started)
    assert sorted(spent)[100] < 1e-3


def test_cues_count_what_a_question_shows() -> None:
    text = "How many kg is 3 + 4?\nA. 7 kg\nB. 8 kg\nC. None of the above\nD. 12"
    found = dict(zip(CUES, cues(text), strict=True))
    assert found["options"] == pytest.approx(0.4)
    assert found["options with digits"] == pytest.approx(0.75)
    assert found["options that are numbers"] == pytest.approx(0.75)
    assert found["none of the above"] == found["how many"] == found["ends with a question mark"] == 1
    assert found["all of the above"] == found["formula"] == 0
    assert all(0 <= value <= 1 for value in found.values())
