"""`conclave router replay`: a recorded decision decided again, or many of them. Reads; changes nothing.

Exit status 1: a decision came out otherwise; 2: wrong usage, or a call that is not there.
"""

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from conclave.gateway.access.cli import Where, located
from conclave.gateway.policy.record_cli import JSON, SINCE, Record, opened

if TYPE_CHECKING:
    from conclave.gateway.policy.recorded import Change
    from conclave.gateway.policy.replayed import Replayed

SHOWN: Final = 20  # decisions that differ, of many, that are named
REQUEST_ID: Final = re.compile(r"[!-~]{1,64}")


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
    if request_id is not None and REQUEST_ID.fullmatch(request_id) is None:
        raise click.UsageError("a REQUEST_ID is the x-request-id of an answer, such as req_ and 24 hex digits")
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


def _replay_all(record: Record, since: str, *, as_json: bool) -> None:
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
    return "same" if found.ending == "same" else f"cannot be replayed: {found.why}"


def _change(one: "Change") -> str:
    recorded, now = (msgspec.json.encode(value).decode() for value in (one.recorded, one.now))
    return f"  {one.path}: recorded {recorded}, now {now}"
