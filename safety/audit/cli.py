"""`conclave audit`: verify, tail, export, prune, key. Exit status 0: in order; 1: the record was changed; 2: usage.

The command line that mounts this group may put an opener of audit tables into the context
(`ctx.meta[TABLES] = open_table`), which `verify --table URL` then asks for the rows that the table remembers, and the
policy's retention (`ctx.meta[KEEP_DAYS] = 30`), which `prune` without a moment then takes.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Final

import click
import msgspec

from conclave.safety.audit import read
from conclave.safety.audit.chain import stamp
from conclave.safety.audit.findings import Part, Report
from conclave.safety.audit.keys import KEY_FILE, SigningKey, read_public
from conclave.safety.audit.prune import prune
from conclave.safety.audit.verify import verify
from conclave.safety.audit.witness import NOTHING, Witnessed

TABLES: Final = "audit: open a table"
KEEP_DAYS: Final = "audit: days to keep"
OpenTable = Callable[[str], Iterable[Witnessed]]  # by URL; ordered by chain, then seq
DATE: Final = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])
PUBLIC_KEY: Final = click.option(
    "--public-key", type=click.File(), help="Trust the keys in this file (PEM), not the one in the state folder."
)


@click.group()
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".conclave"),
    show_default=True,
    envvar="CONCLAVE__SERVER__STATE_DIR",
    show_envvar=True,
    help="The gateway's state folder; the record is in its journal/.",
)
@click.pass_context
def audit(context: click.Context, state_dir: Path) -> None:
    """The record of every call: verify it, read it, keep it no longer than you must."""
    context.obj = state_dir


def _journal(state: Path) -> Path:
    folder = state / "journal"
    if not folder.is_dir():
        raise click.UsageError(f"there is no journal in {state}; is it the gateway's state folder (--state-dir)?")
    return folder


def _trusted(state: Path, public_key: IO[str] | None) -> frozenset[str]:
    if public_key is not None:
        try:
            return read_public(public_key.read())
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    if not (state / KEY_FILE).exists():
        raise click.UsageError(f"there is no key in {state / KEY_FILE}; give the gateway's --public-key FILE")
    return frozenset({_key(state).public})


def _key(state: Path) -> SigningKey:
    try:
        return SigningKey.open(state / KEY_FILE)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"the key cannot be read: {error}") from error


@audit.command("verify")
@PUBLIC_KEY
@click.option(
    "--table", metavar="URL", help="Compare with the audit table in this database, as an independent witness."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for a program.")
@click.pass_context
def verify_command(context: click.Context, public_key: IO[str] | None, table: str | None, *, as_json: bool) -> None:
    """Find and locate whatever was changed in the record. A running gateway is no hindrance."""
    folder, trusted = _journal(context.obj), _trusted(context.obj, public_key)
    witness: Iterable[Witnessed] = NOTHING
    if table is not None:
        opener: OpenTable | None = context.meta.get(TABLES)
        if opener is None:
            raise click.UsageError("--table needs a command line that knows databases: use `conclave audit verify`")
        witness = opener(table)
    started_s = time.perf_counter()
    report = verify(folder, trusted, witness)
    if as_json:
        click.echo(msgspec.json.encode(_summary(report)).decode())
    else:
        _print(report, time.perf_counter() - started_s)
    sys.exit(0 if report.intact else 1)


def _summary(report: Report) -> dict[str, Any]:
    return {
        "intact": report.intact,
        "chains": report.chains,
        "rows": report.rows,
        "signed_entries": report.entries,
        "witnessed_rows": report.witnessed_rows,
        "faults": [{"file": fault.file, "row": fault.row, "what": fault.what} for fault in report.faults],
        "more_faults": report.more_faults,
        "notes": report.notes,
        "dropped": report.dropped,
    }


def _print(report: Report, seconds: float) -> None:
    for fault in report.faults:
        click.secho(_printable(f"FAULT  {fault}"), fg="red")
    if report.more_faults:
        click.secho(f"FAULT  and {report.more_faults} more", fg="red")
    for item in report.dropped:
        click.echo(f"pruned {item.chain}: rows {item.first} to {item.last}, at {item.at}")
    for note in report.notes:
        click.echo(_printable(f"note   {note}"))
    counted = f"{report.rows} rows in {report.chains} chains, {report.entries} signed entries, {seconds:.1f} s"
    if report.witnessed_rows:
        counted += f"; compared with {report.witnessed_rows} rows of the table"
    click.echo(f"{'intact' if report.intact else 'CHANGED'}: {counted}")


@audit.command("tail")
@click.option(
    "-n", "count", type=click.IntRange(min=0), default=10, show_default=True, help="So many of the newest rows."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with the rows that come.")
@click.option("--json", "as_json", is_flag=True, help="The rows' own JSON.")
@click.pass_obj
def tail_command(state: Path, count: int, *, follow: bool, as_json: bool) -> None:
    """The newest rows of all chains."""
    folder = _journal(state)
    to_come = read.Follow(folder)
    for row in read.last_rows(folder, count):
        click.echo(_shown(row, as_json=as_json))
    if follow:
        try:
            for row in to_come:
                click.echo(_shown(row, as_json=as_json))
        except KeyboardInterrupt:
            return


def _shown(row: read.Stored, *, as_json: bool) -> str:
    if as_json:
        return msgspec.json.encode({"hash": row.hash, "row": row.data}).decode()
    data = row.data
    attempts = data.get("attempts") or [{}]
    facts = (
        data.get("ending"),
        data.get("status"),
        data.get("code"),
        data.get("tenant"),
        attempts[-1].get("expert"),
        (data.get("decision") or {}).get("category"),
        f"{data['duration_ms']} ms" if "duration_ms" in data else None,
        data.get("request_id"),
        f"{data['count']} x" if "count" in data else None,
    )
    where = f"{data.get('chain')}#{data.get('seq')}"
    shown = [row.time, str(data.get("kind")), *(str(fact) for fact in facts if fact is not None), where]
    return _printable("  ".join(shown))


def _printable(text: str) -> str:
    """Without control characters: what a changed row or an upstream's error code holds must not steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


@audit.command("export")
@click.option("--from", "since", type=DATE, help="Rows from this moment on (UTC).")
@click.option("--to", "until", type=DATE, help="Rows before this moment (UTC).")
@click.option("--jsonl", type=click.File("wb", lazy=False), required=True, help="Write here; `-` is standard output.")
@PUBLIC_KEY
@click.pass_obj
def export_command(
    state: Path, since: datetime | None, until: datetime | None, jsonl: IO[bytes], public_key: IO[str] | None
) -> None:
    """Verified rows between two moments, each as it stands in the journal (hash and row)."""
    folder, trusted = _journal(state), _trusted(state, public_key)
    report = verify(folder, trusted)
    if not report.intact:
        _print(report, 0.0)
        click.echo("nothing was exported", err=True)
        sys.exit(1)
    lower, upper = (stamp(moment.replace(tzinfo=UTC)) if moment else None for moment in (since, until))
    count = 0
    for row in _between(report, lower, upper):
        jsonl.write(row.line + b"\n")
        count += 1
    click.echo(f"{count} rows", err=True)


def _between(report: Report, lower: str | None, upper: str | None) -> Iterator[read.Stored]:
    """Rows in the span, of those that were verified."""
    chains = [_verified(list(parts)) for _, parts in groupby(report.parts, key=lambda part: part.chain)]
    for row in read.merged(chains):
        if (lower is None or row.time >= lower) and (upper is None or row.time < upper):
            yield row


def _verified(parts: list[Part]) -> Iterator[read.Stored]:
    """A chain's rows that the verification has seen: a living chain may have more by now."""
    for part in parts:
        yield from (row for row in read.rows_of(part.path) if part.first <= row.data["seq"] <= part.last)


@audit.command("prune")
@click.option("--before", type=DATE, help="Drop rows from before this moment (UTC).")
@click.option("--keep-days", type=click.IntRange(min=0), help="Drop rows that are older than so many days.")
@click.option(
    "--public-key", type=click.File(), help="Trust the keys in this file (PEM) too, as before a key was lost."
)
@click.pass_context
def prune_command(
    context: click.Context, before: datetime | None, keep_days: int | None, public_key: IO[str] | None
) -> None:
    """Drop old rows, a day's file at a time, and leave a signed tombstone of what they were."""
    state: Path = context.obj
    if before is None and keep_days is None:
        keep_days = context.meta.get(KEEP_DAYS)
    if before is None and keep_days is None:
        raise click.UsageError(
            "give --before DATE or --keep-days N, or keep_days in the policy's audit section, found by "
            "./conclave.yaml or $CONCLAVE_CONFIG"
        )
    if before is not None and keep_days is not None:
        raise click.UsageError("give either --before DATE or --keep-days N, not both")
    folder, now = _journal(state), datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    moment = before.replace(tzinfo=UTC) if before is not None else midnight - timedelta(days=keep_days or 0)
    earlier = _trusted(state, public_key) if public_key is not None else frozenset[str]()
    pruned = prune(folder, _key(state), earlier, before=moment, now=now)
    if not pruned.before.intact:
        _print(pruned.before, 0.0)
        click.echo("nothing was dropped: a changed record is evidence", err=True)
        sys.exit(1)
    for item in pruned.dropped:
        click.echo(f"dropped {item.chain}: rows {item.first} to {item.last}")
    click.echo(f"{pruned.rows} rows dropped")


@audit.command("key")
@click.pass_obj
def key_command(state: Path) -> None:
    """Print the public key, to pin it where nobody who can write here can write."""
    click.echo(_key(state).public_pem(), nl=False)
