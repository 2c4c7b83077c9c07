"""`conclave router outcomes`: what callers said of answers, as outcome data to learn from. Reads; changes nothing."""

from typing import TYPE_CHECKING, Any

import click
import msgspec

from conclave.gateway.access.cli import Where, located
from conclave.gateway.policy.record_cli import SINCE, opened

if TYPE_CHECKING:
    from conclave.gateway.policy.kept_calls import Kept
    from conclave.gateway.policy.past import PastVersions


@click.command()
@located
@SINCE
@click.option("--with-text", is_flag=True, help="Calls whose question the policy kept (audit.keep_text), with it.")
def outcomes(*, where: Where, since: str, with_text: bool) -> None:
    """Feedback as outcome data, for `conclave router fit`: one JSON line a rated call."""
    written = left_out = 0
    with opened(where) as record:
        questions: dict[str, str] = {}
        if with_text:
            ids = frozenset(kept.row["request_id"] for kept in record.calls.rated(since))
            questions = record.calls.questions(ids)
        for kept in record.calls.rated(since):
            row = _outcome(kept, record.versions)
            if row is None or (with_text and row["id"] not in questions):
                left_out += 1
                continue
            written += 1
            told = {**row, "prompt": questions[row["id"]]} if with_text else row
            click.echo(msgspec.json.encode(told).decode())
    if not written and not left_out:
        click.echo("no rated calls there: POST /v1/feedback rates one (docs/api.md)", err=True)
    if left_out:
        why = "no text was kept, or no expert answered" if with_text else "no expert answered"
        click.echo(f"{left_out} of {written + left_out} left out: {why}", err=True)


def _outcome(kept: "Kept", versions: "PastVersions") -> dict[str, Any] | None:
    """A row of the outcomes schema, as far as it goes: the expert is the one whose answer was shown."""
    from conclave.gateway.policy.trial_report import attempt_usd  # noqa: PLC0415  SQLAlchemy

    row, decision = kept.row, kept.row.get("decision") or {}
    shown = _shown(row)
    if shown is None:
        return None
    expert = shown["expert"]
    told: dict[str, Any] = {"id": row["request_id"], "scores": {expert: kept.said}}
    if decision.get("category") is not None:
        told["category"] = decision["category"]
    version = versions.find(row["policy"])
    cost = attempt_usd(shown, version.document) if version is not None else None
    return told if cost is None else told | {"cost": {expert: cost}}


def _shown(row: dict[str, Any]) -> dict[str, Any] | None:
    """The attempt whose answer the client got: the last one, unless an unsure answer was kept in its place."""
    attempts: list[dict[str, Any]] = row["attempts"]
    if (kept := row.get("kept")) is not None:
        return next((one for one in attempts if one["expert"] == kept), None)
    return attempts[-1] if attempts and attempts[-1].get("failure") is None else None
