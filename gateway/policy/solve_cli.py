"""`conclave router solve`: the table that scores and a budget come to, what it is worth, and what another would buy.

Reads a configuration and, if told to, a file of scores; changes nothing. Exits 1 if no table fits, 2 for wrong usage.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

if TYPE_CHECKING:
    from conclave.gateway.policy.classifier import ClassifierSettings
    from conclave.gateway.policy.document import PolicyDocument
    from conclave.gateway.policy.routing import Routing
    from conclave.gateway.policy.unsure import Proposal
    from conclave.router.budget import Problem
    from conclave.router.choose import Table
    from conclave.router.mapping import Gain, Solved

MEASURES: Final = ("hosted_b", "hosted_gb", "usd_per_call", "latency_ms", "active_b")
LIFTED: Final = "none"
MOST_BYTES: Final = 64 * 1024 * 1024  # of a file of scores
UNSURE: Final = "unsure, others"  # what the row `any` is called for people
FIRST_LIMIT: Final = "limit"
SURE: Final = 1.96  # standard errors on each side of a 95 % interval


class Limit(click.ParamType[tuple[str, float | None]]):
    """`hosted_b=80`; `hosted_b=none` lifts it."""

    name = "measure=number"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float | None]:
        measure, _, amount = str(value).partition("=")
        if measure not in MEASURES:
            self.fail(f"{measure!r} is no measure; known: {', '.join(MEASURES)}", param, ctx)
        if amount == LIFTED:
            return measure, None
        try:
            limit = float(amount)
        except ValueError:
            limit = 0.0
        if not 0 < limit < float("inf"):
            self.fail(f"{value!r}: write a positive number after the =, or {LIFTED}", param, ctx)
        return measure, limit


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked, and what came out."""

    problem: "Problem"
    solved: "Solved"
    gain: "Gain | None"
    table: "Table"
    frontier: tuple["Solved", ...] = ()
    measure: str = ""
    proposal: "Proposal | None" = None


class TooLittle(ValueError):
    """The outcome data say nothing, or cannot be read."""


@click.command()
@click.option(
    "--config", type=click.Path(path_type=Path), help="The YAML file; else $CONCLAVE_CONFIG, ./conclave.yaml."
)
@click.option(
    "--scores", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="JSON, in place of its own."
)
@click.option("--budget", "limits", type=Limit(), multiple=True, help="hosted_b=80, usd_per_call=0.002, ...; or =none.")
@click.option("--worth", "worth_usd", type=click.FloatRange(1e-6, 1e9), help="As routing.answer_worth_usd.")
@click.option(
    "--frontier",
    is_flag=False,
    flag_value=FIRST_LIMIT,
    type=click.Choice([*MEASURES, FIRST_LIMIT]),
    help="Also what less of a measure would cost in score; without a name: of the first limit.",
)
@click.option(
    "--outcomes",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Outcome data that the scores are not from: proposes routing.unsure.below.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for a program.")
@click.option("--yaml", "as_yaml", is_flag=True, help="The table as the rows of a policy.")
def solve(  # noqa: PLR0913  its options
    *,
    config: Path | None,
    scores: Path | None,
    limits: tuple[tuple[str, float | None], ...],
    worth_usd: float | None,
    frontier: str | None,
    outcomes: tuple[Path, ...],
    as_json: bool,
    as_yaml: bool,
) -> None:
    """Print the best table of experts for the policy's scores and budget: rows, optimum, bound, cost, frontier."""
    from conclave.gateway.policy.cli import loaded  # noqa: PLC0415  commands load what they need
    from conclave.router.budget import Infeasible  # noqa: PLC0415

    settings = loaded(config)
    document = settings.policy
    routing: dict[str, object] = {"budget": document.routing.budget.model_copy(update=dict(limits))}
    if worth_usd is not None:
        routing["answer_worth_usd"] = worth_usd
    if scores is not None:
        routing["scores"] = read_scores(scores)
    document = _with_routing(document, document.routing.model_copy(update=routing))
    if not document.routing.scores:
        raise click.ClickException("the policy has no routing.scores; `conclave router fit` makes them: give --scores")
    try:
        with solver_silenced():
            answer = answered(document, frontier, outcomes, classifier=settings.server.classifier)
    except (Infeasible, TooLittle) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(msgspec.json.encode(told(answer)).decode())
    else:
        click.echo(rows_as_yaml(answer.table) if as_yaml else "\n".join(in_words(answer)))


def answered(
    document: "PolicyDocument",
    frontier: str | None = None,
    outcomes: Sequence[Path] = (),
    classifier: "ClassifierSettings | None" = None,
) -> Answer:
    """The document's table with all that is known of it. Raises Infeasible, TooLittle."""
    from conclave.gateway.policy.table import table_of, wanted_of  # noqa: PLC0415  scipy
    from conclave.router import mapping  # noqa: PLC0415

    problem = wanted_of(document)
    solved = mapping.solve(problem)
    measure = next(iter(problem.limits), "usd_per_call") if frontier == FIRST_LIMIT else frontier or ""
    points = mapping.frontier(problem, measure) if measure else ()
    proposal = _proposal(document, problem, solved, outcomes, classifier) if outcomes else None
    gain = mapping.gain_of(problem, solved)
    return Answer(problem, solved, gain, table_of(document), points, measure, proposal)


def _proposal(
    document: "PolicyDocument",
    problem: "Problem",
    solved: "Solved",
    outcomes: Sequence[Path],
    classifier: "ClassifierSettings | None",
) -> "Proposal":
    from conclave.gateway.policy.classifier import ClassifierSettings, opened  # noqa: PLC0415  as above
    from conclave.gateway.policy.own import examples_of  # noqa: PLC0415  as above
    from conclave.gateway.policy.unsure import proposed  # noqa: PLC0415
    from conclave.router.outcomes import read_outcomes  # noqa: PLC0415

    own = document.routing.own_categories
    try:
        router = opened(classifier or ClassifierSettings())
        classify = router.taught(examples_of(own)).classify if own else router.classify
        return proposed(problem, dict(solved.table), read_outcomes(outcomes), classify)
    except (OSError, ValueError) as error:
        raise TooLittle(str(error)) from error


@contextmanager
def solver_silenced() -> Iterator[None]:
    """HiGHS now and then writes a line of its own to the process's standard output, where ours must stand alone."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def read_scores(file: Path) -> Any:
    """A file of scores as the policy holds them."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415  as above

    from conclave.gateway.policy.scored import Scores  # noqa: PLC0415
    from conclave.gateway.policy.source import dotted  # noqa: PLC0415

    try:
        if file.stat().st_size > MOST_BYTES:
            raise click.ClickException(f"{file}: is larger than {MOST_BYTES} bytes")
        plain = msgspec.json.decode(file.read_bytes())
        return TypeAdapter(Scores).validate_python(plain)
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise click.ClickException(f"{file}: cannot be read as JSON: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise click.ClickException(f"{file}: {dotted(first['loc'])}: {first['msg']}") from error


def _with_routing(document: "PolicyDocument", routing: "Routing") -> "PolicyDocument":
    """The document with other scores or budgets; a default row that nobody wrote is then a part of the table."""
    from conclave.gateway.policy.load import complete  # noqa: PLC0415  as above

    unsaid = complete(document.model_copy(update={"default": ()}), {}).default == document.default
    default = () if unsaid and routing.scores else document.default
    return document.model_copy(update={"routing": routing, "default": default})


def told(answer: Answer) -> dict[str, Any]:
    """For a program."""
    solved, gain = answer.solved, answer.gain
    return {
        "table": dict(solved.table),
        "rows": {
            **{row: list(names) for row, names in answer.table.rows.items()},
            "default": list(answer.table.default),
        },
        "hosted": list(_hosted(answer, solved)),
        "expected": solved.expected,
        "error": solved.error,
        "optimum": solved.value,
        "bound": solved.bound,
        "gap": solved.gap,
        "uses": dict(solved.uses),
        "limits": dict(answer.problem.limits),
        "shadow_prices": dict(solved.prices),
        "single": None
        if gain is None
        else {
            "expert": gain.single.hosted[0],
            "expected": gain.single.expected,
            "gain": gain.gain,
            "error": gain.error,
            "pays": gain.pays,
        },
        "unsure": None if answer.proposal is None else _proposal_told(answer.proposal),
        "measure": answer.measure or None,
        "frontier": [
            {answer.measure: one.uses.get(answer.measure), "expected": one.expected, "error": one.error}
            | {"usd_per_call": one.uses.get("usd_per_call"), "hosted": list(one.hosted)}
            for one in answer.frontier
        ],
    }


def _proposal_told(proposal: "Proposal") -> dict[str, Any]:
    found = proposal.threshold
    chosen = {"below": found.below, "gain": found.gain, "error": found.error, "share": found.unsure}
    return chosen | {"questions": proposal.questions, "left_out": proposal.left_out}


def in_words(answer: Answer) -> Iterator[str]:
    """For a person."""
    solved = answer.solved
    yield from _table(answer)
    yield ""
    yield f"expected score   {solved.expected:.4f}, standard error {solved.error:.4f}"
    value = "" if not answer.problem.trade else " (score less what calls cost)"
    yield f"optimum          {solved.value:.6f}, no table is above {solved.bound:.6f}, gap {solved.gap:.6f}{value}"
    hosted = ", ".join(_hosted(answer, solved)) or "nothing of your own"
    yield f"hosted           {hosted}"
    for measure, used in solved.uses.items():
        limit = answer.problem.limits.get(measure)
        beside = f" of {limit:g}" if limit is not None else ""
        worth = solved.prices.get(measure, 0.0) * (limit or 0.0) / 100
        price = f"; 1 % more would bring {worth:.4f} of score" if worth else ""
        yield f"{measure:<16} {used:.6g}{beside}{price}"
    yield _gain(answer.gain)
    if answer.proposal is not None:
        found = answer.proposal.threshold
        low, high = found.gain - SURE * found.error, found.gain + SURE * found.error
        about = f"{answer.proposal.questions} questions"
        left = f", {answer.proposal.left_out} left out: no score of both experts" if answer.proposal.left_out else ""
        gain = f"{found.gain:+.4f} [{low:+.4f}, {high:+.4f}]"
        yield f"unsure below     {found.below:.4f}: {found.unsure:.1%} of {about}, {gain}{left}"
    if answer.frontier:
        yield ""
        yield f"{answer.measure:>14}  {'score':>7}  {'error':>7}  {'USD a call':>10}  experts"
        for one in answer.frontier:
            usd = one.uses.get("usd_per_call")
            cost = f"{usd:.6f}" if usd is not None else "-"
            used = one.uses.get(answer.measure, 0.0)
            yield f"{used:>14.6g}  {one.expected:>7.4f}  {one.error:>7.4f}  {cost:>10}  {', '.join(one.hosted)}"


def _table(answer: Answer) -> Iterator[str]:
    from conclave.router.budget import ANY  # noqa: PLC0415  as above

    problem, shares = answer.problem, answer.problem.shares()
    yield f"{'category':<20} {'share':>6}  {'expert':<20} {'score':>6}  {'error':>6}"
    for category, name in answer.solved.table.items():
        known = problem.scores[category].get(name)
        score = f"{known.score:>6.3f}  {known.error:>6.3f}" if known is not None else f"{'-':>6}  {'-':>6}"
        said = "  as the policy says" if category in problem.fixed else ""
        row = UNSURE if category == ANY else category
        yield f"{row:<20} {shares[category]:>6.1%}  {name:<20} {score}{said}"


def _gain(gain: "Gain | None") -> str:
    if gain is None:
        return "one for all      no single expert with all scores keeps these limits"
    single = f"one for all      {gain.single.hosted[0]}, {gain.single.expected:.4f}: "
    low, high = gain.gain - SURE * gain.error, gain.gain + SURE * gain.error
    verdict = "the table is better" if gain.pays else "routing does not pay by these scores"
    return f"{single}the table brings {gain.gain:+.4f} [{low:+.4f}, {high:+.4f}], {verdict}"


def _hosted(answer: Answer, solved: "Solved") -> Iterator[str]:
    """The experts of the table that take room of one's own."""
    for name in solved.hosted:
        facts: Mapping[str, float] = answer.problem.experts[name]
        if "hosted_b" in facts or "hosted_gb" in facts:
            yield name


def rows_as_yaml(table: "Table") -> str:
    """The rows as a policy's file says them."""
    lines = ["categories:", *(f"  {row}: [{', '.join(names)}]" for row, names in table.rows.items())]
    return "\n".join([*lines, f"default: [{', '.join(table.default)}]"])
