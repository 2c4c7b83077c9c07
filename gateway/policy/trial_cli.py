"""`conclave router shadow|split`: what a trial has shown so far, for people and programs. Reads; changes nothing."""

from typing import TYPE_CHECKING, Any

import click
import msgspec

from conclave.gateway.access.cli import Where, located
from conclave.gateway.policy.record_cli import JSON, SINCE, opened

if TYPE_CHECKING:
    from conclave.gateway.policy.trial_report import ShadowReport, ShadowTally, SplitReport
    from conclave.router.compare import Difference


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
