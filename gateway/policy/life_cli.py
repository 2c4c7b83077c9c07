"""`conclave router replay|shadow|split|outcomes`: what the record knows of the routing. Reads; changes nothing.

Works beside running gateways, on their state folder or database. Exit status 1: something is not as it should be (a
decision that comes out otherwise); 2: wrong usage, or a call that is not there.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from conclave.gateway.access.cli import Where, located
from conclave.gateway.policy.explain_cli import explain
from conclave.gateway.policy.solve_cli import solve
from conclave.router.cascade_cli import calibrate_cascade
from conclave.router.cli import router as room

if TYPE_CHECKING:
    from conclave.gateway.policy.kept_calls import Kept, KeptCalls
    from conclave.gateway.policy.past import PastVersions
    from conclave.gateway.policy.recorded import Change
    from conclave.gateway.policy.replayed import Replayed
    from conclave.gateway.policy.trial_report import ShadowReport, ShadowTally, SplitReport
    from conclave.gateway.state.sql import Database
    from conclave.router.compare import Difference

MONTH: Final = "30d"
UNITS_S: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
SHOWN: Final = 20  # decisions that differ, of many, that are named


class Since(click.ParamType[str]):
    """A moment, `2026-03-01`, or how long ago, `7d`; as the rows of the record have times."""

    name = "since"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if found := re.fullmatch(r"([1-9]\d{0,5})([mhdw])", text):
            moment = datetime.now(UTC) - timedelta(seconds=int(found[1]) * UNITS_S[found[2]])
        else:
            try:
                moment = datetime.fromisoformat(text)
            except ValueError:
                self.fail(f"{text!r} is no moment; write 2026-03-01, 2026-03-01T12:00 (UTC), 12h or 7d", param, ctx)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return moment.isoformat(timespec="microseconds")[:26] + "Z"


SINCE: Final = click.option("--since", type=Since(), default=MONTH, show_default=True, help="A date (UTC), or 12h, 7d.")
JSON: Final = click.option("--json", "as_json", is_flag=True, help="JSON for a program.")


@click.command()
@located
@click.argument("request_id", required=False)
@click.option("--all", "every", is_flag=True, help="Every call since --since, and how many came out the same.")
@SINCE
@JSON
def replay(*, where: Where, request_id: str | None, every: bool, since: str, as_json: bool) -> None:
    """Decide the call REQUEST_ID again from its row and the policy version it names: `same`, or what differs.

    No text is needed. Exits 1 if something differs; a row that cannot be replayed is said, and is no difference.
    """
    from conclave.gateway.policy.replayed import replayed  # noqa: PLC0415  commands load what they need

    if (request_id is None) != every:
        raise click.UsageError("give a REQUEST_ID (the answer's x-request-id), or --all")
    with opened(where) as record:
        if every:
            _replay_all(record, since, as_json=as_json)
            return
        row = record.calls.one(request_id or "")
        if row is None:
            raise click.UsageError(f"there is no call {request_id} in the record")
        found = replayed(row, record.versions)
    click.echo(msgspec.json.encode(_told(row, found)).decode() if as_json else _in_words(found))
    sys.exit(1 if found.ending == "differs" else 0)


def _replay_all(record: "Record", since: str, *, as_json: bool) -> None:
    from conclave.gateway.policy.replayed import replayed  # noqa: PLC0415  as above

    counts = {"same": 0, "differs": 0, "unknown": 0}
    for kept in record.calls.since(since):
        if kept.row.get("decision") is None:
            continue
        found = replayed(kept.row, record.versions)
        counts[found.ending] += 1
        if found.ending == "differs":
            if as_json:
                click.echo(msgspec.json.encode(_told(kept.row, found)).decode())
            elif counts["differs"] <= SHOWN:
                click.echo(f"{kept.row['request_id']}: {', '.join(one.path for one in found.changes)}")
    if as_json:
        click.echo(msgspec.json.encode(counts).decode())
    else:
        unknown = f", {counts['unknown']} cannot be replayed" if counts["unknown"] else ""
        click.echo(f"{counts['same']} the same, {counts['differs']} different{unknown}")
    sys.exit(1 if counts["differs"] else 0)


def _told(row: Mapping[str, Any], found: "Replayed") -> dict[str, Any]:
    changes = [{"path": one.path, "recorded": one.recorded, "now": one.now} for one in found.changes]
    return {"request_id": row["request_id"], "ending": found.ending, "why": found.why, "changes": changes}


def _in_words(found: "Replayed") -> str:
    if found.ending == "differs":
        return "\n".join(["differs", *(_change(one) for one in found.changes)])
    return found.ending if not found.why else f"{found.ending}: {found.why}"


def _change(one: "Change") -> str:
    recorded, now = (msgspec.json.encode(value).decode() for value in (one.recorded, one.now))
    return f"  {one.path}: recorded {recorded}, now {now}"


@click.command()
@located
@click.argument("name", required=False)
@SINCE
@JSON
def shadow(*, where: Where, name: str | None, since: str, as_json: bool) -> None:
    """What the shadows of the policy (or the one with this NAME) would have done, beside what was done."""
    from conclave.gateway.policy.trial_report import shadows  # noqa: PLC0415  commands load what they need

    with opened(where) as record:
        reports = shadows(record.database, since, name)
    if as_json:
        click.echo(msgspec.json.encode([_shadow_told(report) for report in reports]).decode())
    elif not reports:
        click.echo("No calls of a shadow yet: policy.routing.shadow names one, and calls are scored a second later.")
    else:
        click.echo("\n\n".join(_shadow_in_words(report) for report in reports))


def _shadow_told(report: "ShadowReport") -> dict[str, Any]:
    return {
        "shadow": report.name,
        "trial": report.trial,
        "older_calls": report.older,
        "all": _tally_told(report.whole),
        "categories": {name: _tally_told(tally) for name, tally in sorted(report.by_category.items()) if name},
    }


def _tally_told(tally: "ShadowTally") -> dict[str, Any]:
    return {
        "calls": tally.calls,
        "same": tally.same,
        "nobody": tally.nobody,
        "score": _difference_told(tally.score),
        "cost_usd": _difference_told(tally.cost_usd),
        "feedback": {
            "where_same": _mean_told(tally.said_same),
            "where_other": _mean_told(tally.said_other),
            "difference": _difference_told(tally.said),
        },
    }


def _mean_told(values: Any) -> dict[str, Any]:
    return {"calls": len(values), "mean": sum(values) / len(values) if values else None}


def _difference_told(found: "Difference | None") -> dict[str, Any] | None:
    if found is None:
        return None
    bounds = {"mean": found.mean, "low": found.low, "high": found.high}
    return {**bounds, "values": found.values, "verdict": found.verdict}


def _shadow_in_words(report: "ShadowReport") -> str:
    whole = report.whole
    lines = [
        f"{report.name}: {whole.calls} calls, the same expert in {whole.same / whole.calls:.1%}"
        + (f", nobody in {whole.nobody}" if whole.nobody else "")
    ]
    lines += _row("expected score", whole.score, unit="", scale=1)
    lines += _row("cost", whole.cost_usd, unit=" USD per 1,000 calls", scale=1000)
    rated = len(whole.said_same) + len(whole.said_other)
    if rated:
        lines.append(f"  feedback on {rated} calls: {_mean(whole.said_same)} where both agree, ")
        lines[-1] += f"{_mean(whole.said_other)} where the shadow would have asked another"
        lines += _row("  there", whole.said, unit="", scale=1)
    lines.append(f"  {'category':<20} {'calls':>7} {'same':>7}  {'expected score, 95 % interval':<34} verdict")
    for name, tally in sorted(report.by_category.items()):
        if name:
            shown, verdict = _interval(tally.score), tally.score.verdict if tally.score else "cannot tell yet"
            lines.append(f"  {name:<20} {tally.calls:>7} {tally.same / tally.calls:>7.1%}  {shown:<34} {verdict}")
    if report.older:
        lines.append(f"  {report.older} calls of earlier forms of this trial are left out")
    return "\n".join(lines)


def _mean(values: Any) -> str:
    return f"{sum(values) / len(values):.3f} ({len(values)})" if values else "- (0)"


def _row(what: str, found: "Difference | None", *, unit: str, scale: float) -> list[str]:
    if found is None:
        return [f"  {what}: not known"]
    bounds = f"{found.mean * scale:+.4g} [{found.low * scale:+.4g}, {found.high * scale:+.4g}]{unit}"
    return [f"  {what}: {bounds}, {found.verdict} ({found.values} values)"]


def _interval(found: "Difference | None") -> str:
    return "not known" if found is None else f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


@click.command()
@located
@SINCE
@JSON
def split(*, where: Where, since: str, as_json: bool) -> None:
    """The arms of the newest A/B test beside each other, by conversation."""
    from conclave.gateway.policy import trial_report  # noqa: PLC0415  commands load what they need

    with opened(where) as record:
        report = trial_report.split(record.calls.in_arms(since), record.versions)
    if report is None:
        click.echo("[]" if as_json else "No calls of an A/B test: policy.routing.split makes one.")
    elif as_json:
        click.echo(msgspec.json.encode(_split_told(report)).decode())
    else:
        click.echo(_split_in_words(report))


def _split_told(report: "SplitReport") -> dict[str, Any]:
    arms = {
        arm.name: {
            "calls": arm.calls,
            "conversations": len(arm.conversations),
            "feedback": _mean_told(arm.said),
            "answered": _mean_told(arm.answered)["mean"],
            "cost_usd": _mean_told(arm.costs_usd)["mean"],
            "duration_ms": _mean_told(arm.durations_ms)["mean"],
        }
        for arm in (report.control, report.other)
    }
    differences = {name: _difference_told(found) for name, found in report.differences.items()}
    return {"trial": report.trial, "older_calls": report.older, "arms": arms, "differences": differences}


def _split_in_words(report: "SplitReport") -> str:
    lines = []
    for arm in (report.control, report.other):
        rated = f", feedback {_mean(arm.said)}" if arm.said else ""
        lines.append(f"{arm.name}: {arm.calls} calls in {len(arm.conversations)} conversations{rated}")
    scales = {"cost_usd": ("cost", " USD per 1,000 calls", 1000.0), "duration_ms": ("duration", " ms", 1.0)}
    lines.append(f"{report.other.name} less {report.control.name}, with 95 % interval:")
    for name, found in report.differences.items():
        what, unit, scale = scales.get(name, (name, "", 1.0))
        lines += _row(what, found, unit=unit, scale=scale)
    if report.older:
        lines.append(f"{report.older} calls of earlier tests are left out")
    return "\n".join(lines)


@click.command()
@located
@SINCE
@click.option("--with-text", is_flag=True, help="Calls whose question the policy kept (audit.keep_text), with it.")
def outcomes(*, where: Where, since: str, with_text: bool) -> None:
    """Feedback as outcome data: one JSON line a rated call. `conclave router fit` needs --with-text."""
    with opened(where) as record:
        rated = list(record.calls.rated(since))
        ids = frozenset(kept.row["request_id"] for kept in rated)
        questions = record.calls.questions(ids) if with_text else {}
        rows = [_outcome(kept, record.versions) for kept in rated if kept.row["attempts"]]
    written = [
        {**row, "prompt": questions[row["id"]]} if with_text else row
        for row in rows
        if not with_text or row["id"] in questions
    ]
    for row in written:
        click.echo(msgspec.json.encode(row).decode())
    if len(written) < len(rated):
        click.echo(
            f"{len(rated) - len(written)} of {len(rated)} left out: no text was kept, or no expert asked", err=True
        )


def _outcome(kept: "Kept", versions: "PastVersions") -> dict[str, Any]:
    """A row of the outcomes schema, as far as it goes: the expert is the one that answered."""
    from conclave.gateway.policy.trial_report import attempt_usd  # noqa: PLC0415  SQLAlchemy

    row, decision, last = kept.row, kept.row.get("decision") or {}, kept.row["attempts"][-1]
    told: dict[str, Any] = {"id": row["request_id"], "scores": {last["expert"]: kept.said}}
    if decision.get("category") is not None:
        told["category"] = decision["category"]
    version = versions.find(row["policy"])
    cost = attempt_usd(last, version.document) if version is not None else None
    return told if cost is None else told | {"cost": {last["expert"]: cost}}


@dataclass(frozen=True, slots=True)
class Record:
    """What the commands read."""

    database: "Database"
    calls: "KeptCalls"
    versions: "PastVersions"


@contextmanager
def opened(where: Where) -> Iterator[Record]:
    """The state database and the journal. What cannot be used ends the command in one line."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  0.6 s: not for `--help`

    from conclave.gateway.policy.kept_calls import KeptCalls  # noqa: PLC0415
    from conclave.gateway.policy.past import PastVersions  # noqa: PLC0415
    from conclave.gateway.policy.source import ConfigError  # noqa: PLC0415
    from conclave.gateway.policy.store import PolicyStore  # noqa: PLC0415
    from conclave.gateway.settings import load_server  # noqa: PLC0415
    from conclave.gateway.state.sql import Database, StateError  # noqa: PLC0415

    try:
        server = load_server(where.config, state_dir=where.state_dir)
        database = Database.of(server.database_url, server.state_dir).open()
    except (ConfigError, StateError) as error:
        raise click.ClickException(str(error)) from error
    try:
        yield Record(database, KeptCalls(database, server.state_dir / "journal"), PastVersions(PolicyStore(database)))
    except SQLAlchemyError as error:
        raise click.ClickException(f"cannot use the state database {database}: {type(error).__name__}") from error
    finally:
        database.close()


COMMANDS: Final = (explain, replay, shadow, split, outcomes, solve, calibrate_cascade)
router: Final = click.Group(
    "router",
    {**room.commands, **{command.name or "": command for command in COMMANDS}},
    help="Train, measure and use the router; try a policy before it counts.",
)
