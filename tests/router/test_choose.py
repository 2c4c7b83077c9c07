"""The choice of a call from a compiled table, and the threshold below which a question is unsure."""

import random
from collections.abc import Mapping
from typing import Any

import pytest

from conclave.router.api import Classification
from conclave.router.budget import ANY, Problem
from conclave.router.choose import Table, threshold
from conclave.router.mapping import solve

TABLE = Table(
    rows={"code": ("coder", "api", "small"), "law": ("api", "small"), "math": ("small",)},
    default=("api", "coder"),
    pinned=frozenset({"law"}),
    solved=frozenset({"code"}),
    bans={"math": frozenset({"api"})},
    scores={
        "code": {"coder": 0.8, "api": 0.75, "small": 0.5},
        "law": {"api": 0.7, "small": 0.4},
        ANY: {"api": 0.7, "coder": 0.6, "small": 0.45},
    },
    costs={"coder": 0.0, "api": 0.1, "small": 0.0},
    blend=0.5,
)
PRICES = {"coder": 2.0, "api": 3.0, "small": 1.0, "new": 0.5}
QUALITIES = {"coder": 0.1, "api": 0.2, "small": 0.9, "new": 0.99}


def found(category: str = "code", *, confidence: float = 0.9, unsure: bool = False) -> Classification:
    return Classification(category, confidence, unsure, {category: confidence, "other": 1 - confidence})


@pytest.mark.parametrize(
    ("said", "row"),
    [
        (found("code"), ("code", "category")),
        (found("law"), ("law", "pin")),
        (found("law", unsure=True), ("default", "unsure")),
        (found("art"), ("default", "not_listed")),
    ],
)
def test_the_row_of_a_question_and_why(said: Classification, row: tuple[str, str]) -> None:
    assert TABLE.row(said) == row


@pytest.mark.parametrize(
    ("below", "unsure", "confidence", "expected"),
    [
        pytest.param(None, True, 0.9, True, id="as-the-classifier-says"),
        pytest.param(0.5, True, 0.9, False, id="the-policy-is-bolder"),
        pytest.param(0.95, False, 0.9, True, id="the-policy-is-more-careful"),
        pytest.param(0.9, False, 0.9, False, id="at-the-threshold-it-is-sure"),
        pytest.param(0.0, True, 0.0, False, id="never-unsure"),
    ],
)
def test_the_policys_threshold_comes_before_the_classifiers(
    below: float | None, unsure: bool, confidence: float, expected: bool
) -> None:
    table = Table({}, ("a",), unsure_below=below)
    assert table.is_unsure(found(confidence=confidence, unsure=unsure)) is expected


def test_a_ban_holds_where_the_category_is_sure() -> None:
    assert TABLE.banned(found("math")) == {"api"}
    assert TABLE.banned(found("math", unsure=True)) == TABLE.banned(found("code")) == TABLE.banned(None) == frozenset()


def ordered(names: list[str], row: str = "code", reason: str = "category", model: str = "auto", **more: Any) -> Any:
    return TABLE.order(names, row=row, reason=reason, model=model, prices=PRICES, qualities=QUALITIES, **more)


@pytest.mark.parametrize(
    ("names", "model", "order", "reason"),
    [
        pytest.param(["coder", "api", "small"], "auto", ["coder", "api", "small"], "category", id="as-they-stand"),
        pytest.param(["api", "small"], "auto", ["api", "small"], "category", id="without-those-that-cannot"),
        pytest.param(["coder", "api", "small"], "auto:cheap", ["small", "coder", "api"], "cheapest", id="cheap"),
        pytest.param(["small", "api", "coder"], "auto:best", ["coder", "api", "small"], "best", id="best-by-score"),
        pytest.param(
            ["new", "coder"], "auto:best", ["new", "coder"], "best", id="best-by-the-policys-word-if-no-score"
        ),
    ],
)
def test_a_virtual_model_orders_those_that_can(names: list[str], model: str, order: list[str], reason: str) -> None:
    found = ordered(names, model=model)
    assert (found.names, found.reason) == (order, reason)


def test_only_the_able_ones_are_expected_to_score() -> None:
    assert ordered(["api", "new"]).expected == {"api": 0.75}
    assert ordered(["api", "coder"], row="default", reason="unsure").expected == {"api": 0.7, "coder": 0.6}
    assert ordered(["small"], row="math").expected == {}


@pytest.mark.parametrize(
    ("quality", "order", "reason"),
    [
        pytest.param({}, ["coder", "api", "small"], "category", id="none"),
        pytest.param({"coder": 0.8, "api": 0.8, "small": 0.5}, ["coder", "api", "small"], "category", id="agrees"),
        pytest.param({"coder": 0.4, "api": 0.95, "small": 0.5}, ["api", "coder", "small"], "quality", id="much-better"),
        pytest.param(
            {"coder": 0.7, "api": 0.9, "small": 0.5}, ["coder", "api", "small"], "category", id="not-worth-it"
        ),
        pytest.param({"api": 0.99}, ["coder", "api", "small"], "category", id="partly-known"),
    ],
)
def test_a_questions_own_scores_move_the_choice_if_they_are_worth_their_cost(
    quality: Mapping[str, float], order: list[str], reason: str
) -> None:
    found = ordered(["coder", "api", "small"], quality=quality)
    assert (found.names, found.reason) == (order, reason)
    if "coder" in quality:
        assert found.expected["coder"] == pytest.approx((0.8 + quality["coder"]) / 2)


@pytest.mark.parametrize(("row", "reason"), [("law", "pin"), ("default", "unsure"), ("code", "detour")])
def test_a_pin_the_default_row_and_a_detour_are_not_moved(row: str, reason: str) -> None:
    found = ordered(["small", "api"], row=row, reason=reason, quality={"api": 1.0, "small": 0.0})
    assert (found.names, found.reason) == (["small", "api"], reason)


def test_a_threshold_is_where_the_default_stops_being_better() -> None:
    """Below .5 the category's expert is wrong, above it is right; the default is right three times in four."""
    chance = random.Random(1)
    confidence = [chance.random() for _ in range(2000)]
    found = threshold(confidence, [float(one > 0.5) for one in confidence], [0.75] * 2000)
    assert found.below == pytest.approx(0.5, abs=0.01)
    assert found.gain == pytest.approx(0.75 * 0.5, abs=0.02)
    assert found.unsure == pytest.approx(0.5, abs=0.03)
    assert 0 < found.error < 0.02


def test_questions_of_equal_confidence_are_not_torn_apart() -> None:
    found = threshold([0.3, 0.3, 0.3, 0.6, 0.6, 0.9], [0, 0, 0, 0, 1, 1], [1, 1, 1, 0, 0, 0])
    assert (found.unsure, 0.3 < found.below < 0.6) == (0.5, True)


@pytest.mark.parametrize(
    ("routed", "default", "below"),
    [
        pytest.param([1.0, 1.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5], 0.0, id="the-default-is-never-better"),
        pytest.param([0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0], 1.0, id="always"),
        pytest.param([1.0, 0.0, 1.0, 1.0], [1.0, 0.1, 1.0, 1.0], 0.0, id="by-chance"),
        pytest.param([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], 0.0, id="equal"),
    ],
)
def test_the_ends_of_a_threshold(routed: list[float], default: list[float], below: float) -> None:
    assert threshold([0.2, 0.4, 0.6, 0.8], routed, default).below == below


def test_questions_of_full_confidence_are_never_unsure_whatever_the_default_would_bring() -> None:
    """No threshold is above 1: a gain that could not be had is not promised."""
    assert threshold([1.0] * 4, [0.0] * 4, [1.0] * 4).unsure == 0
    found = threshold([0.2, 0.4, 1.0, 1.0], [0.0] * 4, [1.0, 1.0, 0.9, 1.0])
    assert (found.below, found.unsure) == (0.7, 0.5)


@pytest.mark.parametrize("questions", [([], [], []), ([0.5], [1.0], [0.0]), ([0.1, 0.2], [1.0], [1.0])])
def test_a_threshold_of_too_little_is_refused(questions: Any) -> None:
    with pytest.raises(ValueError, match=r"must be of the same questions|two questions at least"):
        threshold(*questions)


class Known:
    def __init__(self, score: float) -> None:
        self.score, self.error = score, 0.0


class World:
    """Experts with known chances of a right answer by category, and a classifier that is right so often."""

    def __init__(self, seed: int, accuracy: float) -> None:
        self.chance = random.Random(seed)
        self.categories = [f"c{number}" for number in range(8)]
        self.experts = {f"e{number}": {"hosted_b": 10.0, "usd_per_call": 0.001} for number in range(5)}
        self.experts["general"] = {"hosted_b": 10.0, "usd_per_call": 0.002}
        self.accuracy = accuracy
        draw = self.chance.uniform
        self.scores = {c: {name: draw(0.2, 0.95) for name in self.experts} for c in self.categories}
        for row in self.scores.values():
            row["general"] = 0.7

    def problem(self, **parts: Any) -> Problem:
        scores = {c: {name: Known(score) for name, score in row.items()} for c, row in self.scores.items()}
        return Problem(self.experts, scores, **parts)

    def question(self) -> tuple[str, str, float]:
        """The true category, the one that the classifier says, and its confidence: right as often as it says."""
        truth = self.chance.choice(self.categories)
        spread = 2 * (1 - self.accuracy)
        confidence = 1 - self.chance.random() * spread
        right = self.chance.random() < confidence
        wrong = self.chance.choice([c for c in self.categories if c != truth])
        return truth, truth if right else wrong, confidence

    def questions(self, count: int, table: Mapping[str, str]) -> tuple[list[float], list[float], list[float]]:
        """Of so many: the confidence, and what the table's expert and the generalist are expected to score."""
        asked = [self.question() for _ in range(count)]
        routed = [self.scores[truth][table[said]] for truth, said, _ in asked]
        return [one for *_, one in asked], routed, [self.scores[truth]["general"] for truth, *_ in asked]


@pytest.mark.parametrize("seed", range(5))
def test_a_good_classifier_closes_nine_tenths_of_the_gap_to_the_oracle(seed: int) -> None:
    """Against the best single expert within the budget; the oracle knows each question's true category."""
    world = World(seed, accuracy=0.98)
    solved = solve(world.problem(limits={"hosted_b": 30.0}))
    _, routed, _ = world.questions(4000, solved.table)
    coe = sum(routed) / len(routed)
    single = max(sum(row[name] for row in world.scores.values()) / 8 for name in world.experts)
    assert solved.uses["hosted_b"] <= 30.0
    assert coe >= single
    assert (coe - single) / (solved.expected - single) >= 0.9


@pytest.mark.parametrize("accuracy", [1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_a_threshold_chosen_on_validation_never_costs_when_the_classifier_is_noisy(seed: int, accuracy: float) -> None:
    """Robust against plain on fresh questions, down to a classifier that is right every second time."""
    world = World(100 + seed, accuracy)
    table = solve(world.problem()).table
    chosen = threshold(*world.questions(2000, table))
    confidence, routed, default = world.questions(4000, table)
    robust = [d if c < chosen.below else r for c, r, d in zip(confidence, routed, default, strict=True)]
    assert sum(robust) / 4000 >= sum(routed) / 4000 - 1e-3
    if accuracy <= 0.6:
        assert sum(robust) / 4000 > sum(routed) / 4000 + 0.005
    if accuracy == 1.0:
        assert chosen.unsure < 0.02
