"""The retrieval gate: value of information, the cost formula, and what each kind of evidence does to the decision."""

from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner

from conclave.gateway.cli import main
from conclave.router.encoder import StaticEncoder
from conclave.router.gates.questions import NUMBERS, numbers_of
from conclave.router.gates.retrieval import ARTIFACT, ENOUGH, Costs, Known, Mode, RetrievalGate, break_even, saving

QUESTION = "Who designed the old lighthouse of Baldor?"
FOUND = Known(best=0.85, margin=0.2, coverage=1.0, expert_score=0.5)


@pytest.fixture(scope="module")
def gate() -> RetrievalGate:
    return RetrievalGate.load(StaticEncoder.load())


@pytest.mark.parametrize(
    ("asked", "retrieved", "costs"),
    [(4_000, 1_937, Costs(12.25, 1_013.5, 3.125)), (7, 0, Costs(0.1, 0.2, 0.3)), (10**9, 1, Costs(1e-3, 1e3, 1e-6))],
    ids=["logged", "small", "many"],
)
def test_the_saving_is_the_papers_formula_on_the_logged_counts(asked: int, retrieved: int, costs: Costs) -> None:
    """(1 - E[g]) * (C_ret + C_ctx) - C_gate per question, to 1e-9 of its size."""
    share = Fraction(retrieved, asked)
    exact = asked * ((1 - share) * (Fraction(costs.search) + Fraction(costs.context)) - Fraction(costs.gate))
    assert float(saving(asked=asked, retrieved=retrieved, costs=costs)) == pytest.approx(
        float(exact), rel=1e-12, abs=1e-9
    )


def test_the_saving_is_what_always_costs_less_what_was_spent() -> None:
    costs, asked, retrieved = Costs(20, 900, 5), 100, 37
    always, spent = asked * costs.looking_up, asked * costs.gate + retrieved * costs.looking_up
    assert saving(asked=asked, retrieved=retrieved, costs=costs) == always - spent


def test_at_the_break_even_share_nothing_is_saved() -> None:
    costs = Costs(50, 950, 100)
    assert saving(asked=1_000, retrieved=round(1_000 * break_even(costs)), costs=costs) == 0
    assert break_even(Costs(0, 0, 1)) == 0


@pytest.mark.parametrize(("asked", "retrieved"), [(1, 2), (0, 1), (5, -1)])
def test_counts_that_cannot_be_are_refused(asked: int, retrieved: int) -> None:
    with pytest.raises(ValueError, match="cannot have been looked up"):
        saving(asked=asked, retrieved=retrieved, costs=Costs())


def test_it_looks_up_where_the_value_exceeds_what_it_costs(gate: RetrievalGate) -> None:
    for known in (FOUND, Known(), Known(best=0.1, margin=0.0, coverage=0.0)):
        said = gate.decide(QUESTION, known)
        assert said.value == pytest.approx(said.p_wrong * said.p_fix - (1 - said.p_wrong) * said.p_harm)
        assert said.threshold == gate.worth * gate.costs.looking_up
        assert said.retrieve == (said.value > said.threshold)


@pytest.mark.parametrize(
    ("less", "more"),
    [
        (Known(agreement=1.0), Known(agreement=0.0)),
        (Known(confidence=0.95), Known(confidence=0.2)),
        (Known(expert_score=0.9), Known(expert_score=0.2)),
        (Known(time_sensitive=False), Known(time_sensitive=True)),
        (Known(best=0.3, coverage=0.2), Known(best=0.9, coverage=1.0)),
        (Known(rarest=0), Known(rarest=3)),
    ],
    ids=["agreement", "confidence", "record", "time", "match", "unknown to the corpus"],
)
def test_each_kind_of_evidence_moves_the_probability(gate: RetrievalGate, less: Known, more: Known) -> None:
    assert gate.decide(QUESTION, less).probability < gate.decide(QUESTION, more).probability


def test_coverage_counts_until_there_is_enough_of_it(gate: RetrievalGate) -> None:
    """A passage that repeats the whole question answers it no more often than one that holds most of it."""
    shares = (0.0, 0.2, 0.4, ENOUGH, 0.8, 1.0)
    fixes = [gate.decide(QUESTION, Known(best=0.6, margin=0.05, coverage=share)).p_fix for share in shares]
    assert fixes[0] < fixes[1] < fixes[2] < fixes[3] == fixes[4] == fixes[5]


def test_suspected_poison_raises_the_harm_and_stops_the_look_up(gate: RetrievalGate) -> None:
    assert gate.decide(QUESTION, FOUND).retrieve
    suspected = gate.decide(QUESTION, Known(0.85, 0.2, 1.0, 0.5, suspicion=1.0))
    assert suspected.p_harm == 1
    assert not suspected.retrieve


def test_an_expert_that_knows_and_a_corpus_that_does_not_cost_nothing(gate: RetrievalGate) -> None:
    said = gate.decide(QUESTION, Known(0.4, 0.01, 0.2, 0.9, agreement=1.0))
    assert not said.retrieve
    assert said.saving == gate.costs.looking_up


def test_a_task_is_not_looked_up(gate: RetrievalGate) -> None:
    assert not gate.decide("Write a short poem about spring and translate it into French.").retrieve


def test_the_counts_of_a_corpus_say_that_a_name_stands_nowhere(gate: RetrievalGate) -> None:
    counts = {"designed": 5, "lighthouse": 2}
    assert gate.decide(QUESTION, counts=counts).p_fix < 0.001
    assert gate.decide(QUESTION, counts=counts | {"baldor": 1}).p_fix > 0.1


@pytest.mark.parametrize("mode", [Mode.ALWAYS, Mode.REQUIRED, Mode.NEVER])
def test_a_fixed_mode_decides_and_says_so(gate: RetrievalGate, mode: Mode) -> None:
    said = gate.decide(QUESTION, FOUND, mode=mode)
    assert said.retrieve == (mode is not Mode.NEVER)
    assert said.required == (mode is Mode.REQUIRED)
    assert said.reason == f"the mode is {mode}"


@pytest.mark.parametrize(
    "known", [Known(coverage=1.5), Known(agreement=-0.1), Known(best=9.0), Known(suspicion=float("nan"))]
)
def test_evidence_that_is_no_share_is_refused(gate: RetrievalGate, known: Known) -> None:
    with pytest.raises(ValueError, match="is"):
        gate.decide(QUESTION, known)


@pytest.mark.parametrize(
    "text",
    ["", "?", "\ud800", "a" * 1_000_000, "\x00\xff", "Who " * 200_000],
    ids=["empty", "mark", "surrogate", "one long word", "bytes", "many words"],
)
def test_any_text_has_finite_numbers(gate: RetrievalGate, text: str) -> None:
    assert 0 < gate.decide(text).probability < 1


def test_every_number_has_a_name() -> None:
    assert len(numbers_of(QUESTION, StaticEncoder.load().tokens)) == len(NUMBERS)


def test_an_artifact_of_another_fit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gate.json"
    file.write_bytes(ARTIFACT.read_bytes().replace(b'"words"', b'"wordz"'))
    with pytest.raises(ValueError, match="another"):
        RetrievalGate.load(StaticEncoder.load(), file)
    file.write_text("{}")
    with pytest.raises(ValueError, match="fit it again"):
        RetrievalGate.load(StaticEncoder.load(), file)


@pytest.mark.parametrize("group", ["retrieval", "router"])
def test_the_command_decides_rows_and_names_bad_ones(group: str) -> None:
    good = '{"id": "a", "question": "Who founded Rome?", "agreement": 0.5}'
    rows = good + '\n{"question": 7}\n{"question": "x", "best": "y"}\n'
    done = CliRunner().invoke(main, [group, "gate", "--jsonl", "-"], input=rows)
    assert done.exit_code == 1
    assert '"id":"a","decision":"retrieve"' in done.stdout
    assert done.stdout.count("\n") == 1
    assert "line 2: 'question' is no string" in done.stderr
    assert "line 3: 'best' is no number" in done.stderr
