"""`conclave router calibrate-cascade`: the threshold of a cascade from logged pairs, as the policy takes it."""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from conclave.router.cli import lines_of, read_row

if TYPE_CHECKING:
    from conclave.router.gates.calibrate import Fit, Pair, Point

NEEDED: Final = ("confidence", "weak", "strong")
COSTS: Final = ("weak_usd", "strong_usd")
SHARES: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@click.command("calibrate-cascade")
@click.argument("file", metavar="FILE")
@click.option("--recover", type=click.FloatRange(0, 1), default=0.9, show_default=True, help="Share of the gap to win.")
@click.option("--usd-per-score", type=click.FloatRange(0, min_open=True), help="What a wholly right answer is worth.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def calibrate_cascade(file: str, recover: float, usd_per_score: float | None, *, as_json: bool) -> None:
    """Find the threshold of `routing.cascade` from pairs of answers to the same questions.

    FILE (- is stdin) has one JSON object a line: `confidence` of the weak expert's answer, `weak` and `strong` (how
    good each answer was, 0 to 1), and perhaps `weak_usd` and `strong_usd`. A bad row is reported with its line.
    """
    import msgspec  # noqa: PLC0415  the group is mounted by the main command: its imports are everyone's

    from conclave.router.gates.calibrate import escalation, fit  # noqa: PLC0415

    for option, value in (("--recover", recover), ("--usd-per-score", usd_per_score)):
        if value is not None and not math.isfinite(value):
            raise click.BadParameter(f"{value} is no number to reckon with", param_hint=option)
    pairs = _pairs(file)
    try:
        found = fit(pairs, recover=recover, usd_per_score=usd_per_score)
    except ValueError as error:
        raise click.ClickException(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    points = escalation(pairs)
    if as_json:
        click.echo(msgspec.json.encode({**asdict(found), "pairs": len(pairs), "pays": found.worth.pays}))
    else:
        click.echo(lay_out(found, points))


def lay_out(found: "Fit", points: "Sequence[Point]") -> str:
    """What people read: the table, whether it pays, and the lines for the policy."""
    from conclave.router.gates.calibrate import at_share  # noqa: PLC0415

    worth = found.worth
    lines = ["escalated    score  by chance  USD a question"]
    for point in (at_share(points, share) for share in SHARES):
        lines.append(f"{point.escalated:9.0%}  {point.score:7.3f}  {point.by_chance:9.3f}  {point.usd:14.6f}")
    lines.append(f"area above chance {worth.area:.4f}, 95 % interval {worth.low:.4f} to {worth.high:.4f}")
    if not worth.pays:
        lines.append("the confidence does not tell which answers are wrong: a cascade does not pay here")
        return "\n".join(lines)
    at = found.at
    if at.escalated in {0.0, 1.0}:
        lines.append(f"best is to escalate {'nothing' if at.escalated == 0 else 'everything'}: no cascade is needed")
        return "\n".join(lines)
    lines.append(
        f"at the threshold {at.escalated:.0%} are escalated, score {at.score:.3f}, {at.usd:.6f} USD a question"
    )
    curve = ", ".join(f"[{confidence:g}, {right:g}]" for confidence, right in found.curve)
    lines += ["", "routing:", "  cascade:", f"    below: {found.below}", f"    curve: [{curve}]"]
    return "\n".join(lines)


def _pairs(file: str) -> "list[Pair]":
    """The rows that are pairs; ends with status 1 after reporting all that are none."""
    pairs, bad = [], 0
    with lines_of(file) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                pairs.append(_pair(read_row(line)))
            except ValueError as error:
                bad += 1
                click.echo(f"{file}: line {number}: {error}", err=True)
    if bad:
        click.echo(f"{bad} bad row{'s' if bad > 1 else ''}; nothing was fitted", err=True)
        sys.exit(1)
    return pairs


def _pair(row: dict[str, object]) -> "Pair":
    from conclave.router.gates.calibrate import Pair, check  # noqa: PLC0415

    if missing := [name for name in NEEDED if name not in row]:
        raise ValueError(f"no {missing[0]!r}")
    values = {}
    for name in (*NEEDED, *COSTS):
        value = row.get(name, 0.0)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{name!r} is no number")  # noqa: TRY004  a wrong row, not a wrong call
        try:
            values[name] = float(value)
        except OverflowError:
            raise ValueError(f"{name!r} is too large") from None
    pair = Pair(**values)
    check(pair)
    return pair
