"""Where the commands that look back at calls find them, and since when: the options, and the record, opened.

They work beside running gateways, on their state folder or database. Nothing is made that is not there; a database of
an older Conclave is brought up to date, as by every command.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from conclave.gateway.access.cli import Where
    from conclave.gateway.policy.kept_calls import KeptCalls
    from conclave.gateway.policy.past import PastVersions
    from conclave.gateway.state.sql import Database

MONTH: Final = "30d"
UNITS_S: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Since(click.ParamType[str]):
    """A moment, `2026-03-01`, or how long ago, `7d`; as the rows of the record have times."""

    name = "since"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        try:
            if found := re.fullmatch(r"([1-9]\d{0,5})([mhdw])", text):
                moment = datetime.now(UTC) - timedelta(seconds=int(found[1]) * UNITS_S[found[2]])
            else:
                moment = datetime.fromisoformat(text)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except OverflowError:
            self.fail(f"{text!r} is before the year 1", param, ctx)
        except ValueError:
            self.fail(f"{text!r} is no moment; write 2026-03-01, 2026-03-01T12:00 (UTC), 12h or 7d", param, ctx)
        return moment.isoformat(timespec="microseconds")[:26] + "Z"


SINCE: Final = click.option("--since", type=Since(), default=MONTH, show_default=True, help="A date (UTC), or 12h, 7d.")
JSON: Final = click.option("--json", "as_json", is_flag=True, help="JSON for a program.")


@dataclass(frozen=True, slots=True)
class Record:
    """What the commands read."""

    database: "Database"
    calls: "KeptCalls"
    versions: "PastVersions"


@contextmanager
def opened(where: "Where") -> Iterator[Record]:
    """The state database and the journal. What cannot be used ends the command in one line."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415  0.6 s: not for `--help`

    from conclave.gateway.policy.kept_calls import BrokenRow, KeptCalls  # noqa: PLC0415
    from conclave.gateway.policy.past import PastVersions  # noqa: PLC0415
    from conclave.gateway.policy.source import ConfigError  # noqa: PLC0415
    from conclave.gateway.policy.store import PolicyStore  # noqa: PLC0415
    from conclave.gateway.settings import load_server  # noqa: PLC0415
    from conclave.gateway.state.sql import Database, StateError  # noqa: PLC0415

    try:
        server = load_server(where.config, state_dir=where.state_dir)
        database = Database.of(server.database_url, server.state_dir)
        if not database.is_there:
            raise click.ClickException(
                f"there is no record at {database}: say where the gateway's is, with --state-dir or --config"
            )
        database.open()
    except (ConfigError, StateError) as error:
        raise click.ClickException(str(error)) from error
    try:
        yield Record(database, KeptCalls(database, server.state_dir / "journal"), PastVersions(PolicyStore(database)))
    except BrokenRow as error:
        raise click.ClickException(str(error)) from error
    except SQLAlchemyError as error:
        raise click.ClickException(f"cannot use the state database {database}: {type(error).__name__}") from error
    except BrokenPipeError:
        raise  # the reader of our output left: click knows what to do
    except OSError as error:
        raise click.ClickException(f"cannot read the journal: {error}") from error
    finally:
        database.close()
