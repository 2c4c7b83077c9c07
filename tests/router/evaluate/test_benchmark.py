"""The benchmark: closed-form cases of its measures, honest splits, and what it says of planted pools."""

import gzip
import os
from dataclasses import replace
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.sparse import csr_matrix

from conclave.router.cli import router
from conclave.router.encoder import StaticEncoder
from conclave.router.evaluate.benchmark import Result, advice, measured
from conclave.router.evaluate.lines import chart, draw
from conclave.router.evaluate.measures import Interval, apgr, bootstrap, cpt, recovered
from conclave.router.evaluate.pools import FOLDS, Pool, complete, file_pools, folds, knowledge
from conclave.router.evaluate.refit import stem
from conclave.router.outcomes import Graded
from conclave.router.train.forest import boost
from conclave.router.train.linear import ridge
from conclave.router.train.quality import material

WEAK = np.array([0.0, 0.0, 1.0, 1.0])
STRONG = np.array([1.0, 1.0, 1.0, 1.0])


def test_a_perfect_order_recovers_the_gap_with_the_calls_that_need_it() -> None:
    curve = recovered(np.array([4.0, 3.0, 2.0, 1.0]), WEAK, STRONG)
    assert curve.tolist() == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert apgr(curve) == pytest.approx(0.75)
    assert cpt(curve, 0.5) == 0.25
    assert cpt(curve, 0.8) == 0.5


def test_the_worst_order_recovers_it_last() -> None:
    curve = recovered(np.array([1.0, 2.0, 3.0, 4.0]), WEAK, STRONG)
    assert apgr(curve) == pytest.approx(0.25)
    assert cpt(curve, 0.5) == 0.75
    assert cpt(curve, 0.8) == 1.0


def test_no_preference_is_chance_whatever_the_order_of_the_rows() -> None:
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        assert apgr(recovered(np.zeros(4), WEAK[order], STRONG[order])) == pytest.approx(0.5)


def test_more_than_the_gap_is_recovered_where_the_weak_expert_is_better_on_some() -> None:
    curve = recovered(np.array([2.0, 1.0, -1.0]), np.array([0.0, 0.0, 1.0]), np.array([1.0, 1.0, 0.0]))
    assert curve.tolist() == [0.0, 1.0, 2.0, 1.0]


def test_without_a_gap_there_is_nothing_to_recover() -> None:
    with pytest.raises(ValueError, match="no gap"):
        recovered(np.zeros(4), STRONG, WEAK)


def test_the_interval_holds_the_mean_and_is_as_wide_as_theory_says() -> None:
    draw_ = np.random.default_rng(0)
    for values in ((draw_.random(5000) < 0.3).astype(float), draw_.random(5000)):
        found = bootstrap(values)
        assert found.low < found.value < found.high
        assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 5000**0.5, rel=0.08)
        assert found == bootstrap(values)


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (Interval(0.02, 0.01, 0.03), "routing pays here: +2.0"),
        (Interval(0.02, -0.01, 0.05), "routing does not pay here: +2.0"),
        (Interval(-0.01, -0.03, 0.0), "routing does not pay here: -1.0"),
    ],
    ids=["above 0", "0 inside", "below 0"],
)
def test_routing_pays_only_if_the_interval_lies_above_zero(gain: Interval, said: str) -> None:
    assert advice(gain).startswith(said)


WORDS = {
    "cooking": "oven butter flour recipe dough bake",
    "sailing": "boat wind sail harbour anchor mast",
    "chess": "knight bishop rook pawn opening board",
}


def pool(count: int, *, gain: float, seed: int = 0, costs: bool = False) -> Pool:
    draw_ = Random(seed)
    rows = []
    for number in range(count):
        topic = draw_.choice(sorted(WORDS))
        text = " ".join(draw_.choices(WORDS[topic].split(), k=7))
        cook = float(draw_.random() < 0.35 + gain * (topic == "cooking"))
        sailor = float(draw_.random() < 0.5 + gain * (topic == "sailing"))
        rows.append(Graded(text, {"cook": cook, "sailor": sailor}, str(number), subset=topic, dataset="made"))
    return Pool("planted", ("cook", "sailor"), rows, {"cook": 1.0, "sailor": 0.1} if costs else {})


def result(of: Pool, split: str = "5-fold") -> Result:
    guess = [{"math": 0.5, "law": 0.5}] * len(of.rows)
    held = material(of.rows, guess, encoder=StaticEncoder.load(), experts=of.experts)
    part = folds(of.rows, split)
    assert part is not None
    return measured(of, held, part, split=split, clock=lambda: 0.0)


@pytest.fixture(scope="module")
def planted() -> Result:
    return result(pool(600, gain=0.4))


def test_what_is_planted_is_found_and_lies_between_the_best_expert_and_the_oracle(planted: Result) -> None:
    ways = planted.ways
    assert ways["random"].accuracy.value <= ways["best single"].accuracy.value + 0.03
    assert ways["blend"].accuracy.value > ways["best single"].accuracy.value + 0.05
    assert ways["known topic"].accuracy.value > ways["best single"].accuracy.value + 0.05
    assert ways["oracle"].accuracy.value >= max(way.accuracy.value for way in ways.values())
    assert ways["best single"].gain == Interval(0.0, 0.0, 0.0)
    assert planted.advice.startswith("routing pays here")
    assert planted.curves is not None
    assert planted.curves.apgr.low <= planted.curves.apgr.value <= planted.curves.apgr.high


def test_the_same_pool_gives_the_same_result(planted: Result) -> None:
    assert result(pool(600, gain=0.4)) == planted


def test_where_nothing_is_planted_it_is_said_that_routing_does_not_pay() -> None:
    assert result(pool(400, gain=0.0)).advice.startswith("routing does not pay here")


def test_a_cheaper_expert_that_is_as_good_is_asked_and_the_accuracy_stays() -> None:
    """Both are always right: the first is the best single expert, the second costs a tenth."""
    some = pool(300, gain=0.0, costs=True)
    found = result(replace(some, rows=[replace(row, scores={"cook": 1.0, "sailor": 1.0}) for row in some.rows]))
    assert found.ways["best single"].cost == 1.0
    assert found.ways["blend, thrifty"].cost == pytest.approx(0.1)
    assert found.ways["CoE"].cost == pytest.approx(0.1)
    assert found.ways["blend, thrifty"].accuracy.value == 1.0


def test_subjects_are_left_out_whole() -> None:
    rows = pool(200, gain=0.1).rows
    part = folds(rows, "leave-subjects-out")
    assert part is not None
    assert len({(row.subset, number) for row, number in zip(rows, part.tolist(), strict=True)}) == len(WORDS)


def test_five_folds_are_of_equal_size() -> None:
    part = folds(pool(203, gain=0.1).rows, "5-fold")
    assert part is not None
    assert np.ptp(np.bincount(part)) <= 1
    assert len(np.unique(part)) == FOLDS


def test_one_data_set_cannot_be_left_out() -> None:
    assert folds(pool(50, gain=0.1).rows, "leave-dataset-out") is None


def test_only_rows_that_all_experts_answered_are_compared() -> None:
    whole = pool(300, gain=0.1)
    rows = [row if number % 2 else Graded(row.prompt, {"cook": 1.0}, row.name) for number, row in enumerate(whole.rows)]
    assert len(complete(replace(whole, rows=rows)).rows) == 150
    with pytest.raises(ValueError, match="50 rows on which all of 2 experts were asked"):
        complete(replace(whole, rows=rows[:100]))


def test_any_file_of_the_schema_is_a_pool(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl.gz"
    lines = [
        {"prompt": f"q {n}", "scores": {"a": 1, "b": 0} | ({"rare": 1} if n < 30 else {}), "cost": {"a": 2, "b": 1}}
        for n in range(150)
    ]
    file.write_bytes(gzip.compress(b"\n".join(map(msgspec.json.encode, lines))))
    (found,) = file_pools(file)
    assert (found.name, found.experts, len(found.rows)) == ("mine", ("a", "b"), 150)


def test_knowledge_rows_are_a_pool_of_those_that_were_all_measured(tmp_path: Path) -> None:
    file = tmp_path / "retrieval_gate.jsonl.gz"
    lines = [
        {"id": f"w{n}", "question": f"who {n}?", "per_model": {"a": 1.0, "b": 0.0} | ({"c": 0.5} if n < 120 else {})}
        for n in range(200)
    ]
    file.write_bytes(gzip.compress(b"\n".join(map(msgspec.json.encode, lines))))
    assert len(knowledge(file).rows) == 120


def test_a_question_is_known_again_whatever_its_options_look_like() -> None:
    assert stem("What is 2 + 2?\nA. 4\nB. 5\nAnswer:") == stem("what is 2+2 ?\n(A) 5\n(B) 4")
    assert stem("What is 2 + 2?") != stem("What is 2 + 3?")


def test_trees_find_what_two_features_say_only_together() -> None:
    draw_ = np.random.default_rng(0)
    features = draw_.random((3000, 6)).astype(np.float32)
    both = ((features[:, 1] > 0.5) != (features[:, 4] > 0.5)).astype(np.float32)[:, None] - 0.5
    wanted = np.concatenate((both, -both), axis=1)
    forest = boost(features, wanted, seed=1)
    assert np.abs(forest.predict(features) - wanted).mean() < 0.25
    again = boost(features, wanted, seed=1)
    assert (forest.leaf == again.leaf).all()
    assert (forest.cut == again.cut).all()


def test_trees_of_constant_features_say_nothing() -> None:
    forest = boost(np.ones((50, 3), dtype=np.float32), np.zeros((50, 2), dtype=np.float32), seed=0)
    assert (forest.predict(np.zeros((4, 3), dtype=np.float32)) == 0).all()


def test_ridge_solves_its_normal_equations() -> None:
    draw_ = np.random.default_rng(0)
    words = draw_.random((60, 12)).astype(np.float32)
    wanted = draw_.normal(size=(60, 3)).astype(np.float32)
    found = ridge(csr_matrix(words), wanted, np.array([0.5, 2.0, 8.0], dtype=np.float32))
    for column, penalty in enumerate((0.5, 2.0, 8.0)):
        exact = np.linalg.solve(words.T @ words + penalty * np.eye(12), words.T @ wanted[:, column])
        assert found[:, column] == pytest.approx(exact, abs=2e-3)


def test_a_chart_has_a_bar_for_each_way_and_no_markup_of_others(planted: Result, tmp_path: Path) -> None:
    text = chart(replace(planted, pool="a<b&c"))
    assert text.count('height="18"') == len(planted.ways)
    assert "a&lt;b&amp;c" in text
    assert draw(planted, tmp_path).read_text() == chart(planted)


def test_an_unknown_split_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(router, ["benchmark", "--data", str(tmp_path), "--splits", "6-fold"])
    assert done.exit_code == 2
    assert "'6-fold' is none of 5-fold" in done.stderr


def test_a_folder_without_outcomes_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(router, ["benchmark", "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert "holds no outcomes_" in done.stderr


@pytest.mark.slow
def test_the_command_prints_one_object_for_a_file_of_our_own(tmp_path: Path) -> None:
    data = os.environ.get("CONCLAVE_DATA")
    if not data:
        pytest.skip("CONCLAVE_DATA does not say where category_train is")
    file = tmp_path / "mine.jsonl"
    rows = pool(200, gain=0.3).rows
    file.write_bytes(b"\n".join(msgspec.json.encode({"prompt": r.prompt, "scores": r.scores}) for r in rows))
    arguments = ["benchmark", "--data", data, "--outcomes", str(file), "--splits", "5-fold", "--json"]
    done = CliRunner().invoke(router, arguments)
    assert done.exit_code == 0, done.stderr
    (found,) = msgspec.json.decode(done.stdout)["results"]
    assert {"best single", "random", "predicted category", "CoE", "blend", "oracle"} <= set(found["ways"])
