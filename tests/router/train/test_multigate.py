"""One network for all questions: what its parts promise, what the gauges see, and what it does on the made-up tasks."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the networks need the `moe` extra")
pytest.importorskip("threadpoolctl", reason="the linear heads need the `train` extra")

import torch

from conclave.router.train.corpus import SOURCE
from conclave.router.train.multigate import synthetic
from conclave.router.train.multigate.compare import Table, choose, compare, difference, interval, redrawn
from conclave.router.train.multigate.gauges import gradient_ratio, read
from conclave.router.train.multigate.inputs import SKETCH, sketch
from conclave.router.train.multigate.learn import NETWORKS, UNKNOWN, Plan, losses
from conclave.router.train.multigate.network import FeatureGate, Home, Shape
from conclave.router.train.multigate.roc import auc
from conclave.router.train.multigate.tasks import TASKS, Labelled, folds, odds, split, stem

SHAPE = Shape(inputs=5, classes=(3, 2, 2), groups=((0, 1), (2,)), width=4)
ANSWERS = {"category": ("code", "law"), "quality": ("less", "same", "more")}
ROWS = [
    Labelled(f"{task} {label} {source} {number}", task, label, f"{source}")
    for task in TASKS
    for label in ANSWERS.get(task, ("no", "yes"))
    for source in ("exam", "chat", "forum", "mail", "wiki", "notes")
    for number in range(3)
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def inputs(rows: int = 8) -> "np.ndarray":
    return np.random.default_rng(0).normal(size=(rows, SHAPE.inputs)).astype(np.float32)


def test_a_feature_gate_starts_as_identity() -> None:
    values = torch.randn(2, 7, 5)
    assert torch.equal(FeatureGate(2, 5)(values), values)


def test_an_expert_is_given_the_value_times_the_gate_and_not_the_gate() -> None:
    gate = FeatureGate(2, 5)
    gate.up.data.normal_()
    values = torch.randn(2, 7, 5)
    scale = 2 * torch.sigmoid(values @ gate.down @ gate.up)
    torch.testing.assert_close(gate(values), values * scale)
    assert not torch.allclose(gate(values), scale)


def test_the_mask_forbids_experts_of_other_tasks_and_other_groups() -> None:
    weights = Home(SHAPE).eval()(torch.from_numpy(inputs())).gates[0] > 0
    own, group, shared = weights[:, :3], weights[:, 3:5], weights[:, 5:]
    assert own.tolist() == torch.eye(3, dtype=torch.bool).tolist()
    assert group.tolist() == [[True, False], [True, False], [False, True]]
    assert bool(shared.all())


@pytest.mark.parametrize("own", [1, 2])
@pytest.mark.parametrize("kind", NETWORKS)
def test_what_the_experts_count_for_a_task_sums_to_one(kind: str, own: int) -> None:
    made = NETWORKS[kind](replace(SHAPE, own=own)).eval()(torch.from_numpy(inputs()))
    torch.testing.assert_close(made.gates.sum(2), torch.ones(8, 3))
    assert [tuple(one.shape) for one in made.logits] == [(8, 3), (8, 2), (8, 2)]


@pytest.mark.parametrize("kind", NETWORKS)
def test_linear_heads_inside_start_at_zero_and_then_count(kind: str) -> None:
    """The variant that is tried beside HoME: the same network, with a linear head a task."""
    network = NETWORKS[kind](replace(SHAPE, linear=True)).eval()
    values = torch.from_numpy(inputs())
    before = network(values).logits[0]
    network.towers.flat[0].weight.data += 1
    torch.testing.assert_close(network(values).logits[0] - before, values.sum(1, keepdim=True).expand(-1, 3))


def test_a_row_without_a_label_teaches_nothing_on_that_task() -> None:
    network = Home(SHAPE).eval()
    labels = np.full((8, 3), UNKNOWN)
    labels[:4, 1] = 1
    assert len(losses(network, inputs(), labels)) == 1
    sum(losses(network, inputs(), labels)).backward()
    assert network.towers.deep[1].weight.grad is not None
    assert network.towers.deep[0].weight.grad is None


@pytest.mark.parametrize(
    "wrong",
    [{"groups": ((0, 1), (1, 2))}, {"groups": ((0, 1),)}, {"width": 0}, {"drop": 1.0}, {"classes": (2, 0, 2)}],
    ids=["in two groups", "in none", "no width", "drops all", "no classes"],
)
def test_a_shape_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"task|network"):
        replace(SHAPE, **wrong)


def healthy() -> tuple["np.ndarray", "np.ndarray"]:
    """Outputs and gates of two tasks with an own expert each and one shared expert: nothing is wrong."""
    outputs = np.random.default_rng(0).normal(size=(50, 3, 4)).astype(np.float32)
    gates = np.tile(np.array([[0.5, 0, 0.5], [0, 0.5, 0.5]], dtype=np.float32), (50, 1, 1))
    return outputs, gates


def test_a_healthy_mixture_raises_no_alarm() -> None:
    outputs, gates = healthy()
    assert read([outputs], gates, own=1, shared=1).alarms([1]) == ()


def test_an_expert_that_says_nothing_is_collapse_in_whichever_layer_it_stands() -> None:
    outputs, gates = healthy()
    dead = outputs.copy()
    dead[:, 2] = 0
    found = read([dead, outputs], gates, own=1, shared=1)
    assert found.alarms([1]) == ("collapse",)
    assert found.zero_rate[2] == 1.0
    assert found.spread_ratio == float("inf")


def test_a_shared_expert_that_one_task_holds_is_degradation() -> None:
    outputs, gates = healthy()
    gates[:, 1] = (0, 0.96, 0.04)
    found = read([outputs], gates, own=1, shared=1)
    assert found.alarms([1]) == ("degradation",)
    assert found.occupancy[0] == pytest.approx(0.5 / 0.54)


def test_a_sparse_task_that_leaves_its_own_expert_is_underfitting() -> None:
    outputs, gates = healthy()
    gates[:, 1] = (0, 0.05, 0.95)
    assert read([outputs], gates, own=1, shared=1).alarms([1]) == ("underfitting",)
    assert read([outputs], gates, own=1, shared=1).alarms([0]) == ()


@pytest.mark.parametrize("case", ["rows", "experts", "axes", "number", "empty"])
def test_arrays_that_do_not_fit_are_refused(case: str) -> None:
    outputs, gates = healthy()
    match case:
        case "rows":
            gates = gates[1:]
        case "experts":
            gates = np.concatenate((gates, gates), axis=2)
        case "axes":
            outputs = outputs[0]
        case "number":
            outputs[3, 1, 2] = np.nan
        case "empty":
            outputs, gates = outputs[:0], gates[:0]
    with pytest.raises(ValueError, match=r"outputs|experts"):
        read([outputs], gates, own=1, shared=1)


def test_the_gradient_ratio_needs_both_kinds_of_tasks() -> None:
    assert gradient_ratio([4.0, 1.0, 2.0], [1]) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="few labels"):
        gradient_ratio([1.0, 1.0], [])


def test_the_area_counts_pairs_and_halves_ties() -> None:
    assert auc(np.array([0.1, 0.5, 0.5, 0.9], dtype=np.float32), np.array([0, 0, 1, 1])) == pytest.approx(3.5 / 4)
    assert np.isnan(auc(np.zeros(3, dtype=np.float32), np.ones(3, dtype=np.int64)))


def test_lexical_features_keep_their_places_and_signs() -> None:
    some = sketch(np.array([3, 70_000, 139_000]))
    assert some.shape == (SKETCH,)
    assert np.count_nonzero(some) == 3
    assert not sketch(np.array([], dtype=np.int64)).any()
    both = np.unique(np.sign([sketch(np.array([code])).sum() for code in range(50)]))
    assert both.tolist() == [-1, 1]


def test_the_same_question_in_two_benchmarks_is_one_question() -> None:
    assert stem("Which virus?\nA. this\nB. that\nAnswer:") == stem("which Virus ?\n(A) that\n(B) this")
    assert stem("Which virus?") != stem("Which bacterium?")


def test_what_is_learned_from_asks_nothing_that_is_held_out() -> None:
    rows = [*ROWS, Labelled(ROWS[0].text + "!", "risk", "no", "elsewhere")]
    inside, outside = split(rows, frozenset({ROWS[0].source}))
    assert {rows[number].source for number in outside} == {ROWS[0].source}
    assert len(rows) - 1 not in inside
    assert len(inside) == sum(row.source != ROWS[0].source for row in ROWS)


def test_a_source_is_held_out_in_one_fold_and_ours_in_none() -> None:
    found = folds([*ROWS, Labelled("x", "category", "code", SOURCE)])
    assert sorted(name for fold in found for name in fold) == sorted({row.source for row in ROWS})


def test_tasks_and_their_labels_are_drawn_alike_and_sources_alike_if_told_so() -> None:
    rows = [*ROWS, *(Labelled(f"{n}", "risk", "yes", "large") for n in range(200))]
    chance = odds(rows, source_power=0.0)
    for task in TASKS:
        assert chance[[row.task == task for row in rows]].sum() == pytest.approx(1.0)
    large = chance[[row.source == "large" for row in rows]].sum()
    assert large == pytest.approx(
        chance[[row.source == "exam" and row.label == "yes" and row.task == "risk" for row in rows]].sum()
    )


def test_rows_are_drawn_again_within_their_source() -> None:
    sources = np.array([1, 0, 1, 1, 0])
    drawn = redrawn(sources, np.random.default_rng(0))
    assert sources[drawn].tolist() == sorted(sources.tolist())


def test_a_comparison_judges_every_model_on_every_task_and_fold() -> None:
    found = np.random.default_rng(1).normal(size=(len(ROWS), 6)).astype(np.float32)
    found[:, 0] = [("yes", "more", "law").count(row.label) * 4 for row in ROWS]  # a model can see the answer
    table, plan = Table.of(ROWS, found), Plan(steps=4, batch=32)
    said: list[str] = []
    judged = compare(table, choose(table, plan, said.append), seeds=(0, 1), plan=plan, say=said.append)
    assert len(judged) == len(TASKS) * 3 * (1 + 2 + 1)
    assert {one.measure() for one in judged if one.model == "linear" and one.task == "risk"} == {1.0}
    apart = difference(judged, "home", "linear", task="risk", draws=20)
    middle, low, high = interval(apart)
    assert low <= middle <= high <= 0
    assert not difference(judged, "linear", "linear", task="risk", draws=3).any()


@pytest.mark.slow
def test_on_the_made_up_tasks_the_plain_mixture_shows_each_anomaly_and_home_none() -> None:
    """And HoME is no worse than one logistic regression a task. About 20 s on one core."""
    tasks = synthetic.six_tasks(0)
    plain = synthetic.show("plain", tasks, seed=0)
    assert plain.gauges.alarms(synthetic.SPARSE) == ("collapse", "degradation", "underfitting")
    home = synthetic.show("home", tasks, seed=0)
    assert home.gauges.alarms(synthetic.SPARSE) == ()
    assert max(home.gauges.zero_rate) < 0.2
    assert max(home.gauges.occupancy) < 0.9
    assert min(home.gauges.own_mass[task] for task in synthetic.SPARSE) > 0.1
    assert np.mean(home.areas) > np.mean(synthetic.linear(tasks)) > np.mean(plain.areas)
