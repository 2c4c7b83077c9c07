"""The command `conclave`: it knows its commands by name and one line each, and imports a room's only to run it."""

import difflib
import gc
import importlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import click

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from conclave.gateway.policy.tools import ToolGate
    from conclave.gateway.serve import Bound
    from conclave.gateway.settings import ServerSettings, Settings
    from conclave.safety.audit.keys import SigningKey
    from conclave.safety.audit.witness import Witnessed

COMMANDS: Final = {  # name: (where it is, its line in --help)
    "serve": ("conclave.gateway.cli:serve", "Run the gateway."),
    "check-config": ("conclave.gateway.policy.cli:check_config", "Say what is wrong with a configuration."),
    "route": ("conclave.gateway.policy.cli:route", "Say which expert would answer a question, and why."),
    "policy": ("conclave.gateway.policy.versions_cli:policy", "List, compare and roll back versions of the policy."),
    "keys": ("conclave.gateway.access.cli:keys", "Make, list, rotate and revoke API keys."),
    "envelope": ("conclave.gateway.access.envelope_cli:envelope", "Sign requests, and make the keys for it."),
    "audit": ("conclave.safety.audit.cli:audit", "Verify, read, export and prune the record of every call."),
    "knowledge": ("conclave.retrieval.cli:knowledge", "Add documents to look answers up in; search and forget them."),
    "retrieval": ("conclave.gateway.policy.gate_cli:retrieval", "Measure how documents are found, and when it pays."),
    "safety": ("conclave.safety.cli:safety", "Try the checks on files: texts, answers, tool calls, passages."),
    "router": ("conclave.gateway.policy.life_cli:router", "Train, measure and use the router; try a policy."),
    "moe": ("conclave.moe.cli:moe", "Serve a mixture-of-experts model as a local expert."),
    "migrate": ("conclave.gateway.cli:migrate", "Bring the state database up to date."),
    "version": ("conclave.gateway.cli:version", "Print the version."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        if cmd_name not in COMMANDS:
            return None
        path, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(path), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] == "audit":
            _hand_to_audit(ctx, args)
        if args[0] == "keys":
            _hand_to_keys(ctx)
        if args[0] == "safety":
            _hand_to_safety(ctx)
        if args[0] in {"knowledge", "retrieval"}:
            _hand_to_knowledge(ctx)
        if not args[0].startswith("-") and args[0] not in COMMANDS:
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            guess = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"No such command {args[0]!r}.{guess}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])


def _print_version(context: click.Context, _: click.Parameter, value: object) -> None:
    if value:
        click.echo(_version())
        context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print it.")
def main() -> None:
    """Conclave: one OpenAI-compatible door to many experts."""


@click.command()
@click.option(
    "--config", type=click.Path(path_type=Path), help="The YAML file; else $CONCLAVE_CONFIG, ./conclave.yaml."
)
@click.option("--host", help="Address of the API; anything but loopback needs a key first.")
@click.option("--port", type=int, help="Port of the API; 0: any free one.")
@click.option("--admin-port", type=int, help="Port of /metrics; 0: any free one.")
@click.option(
    "--state-dir", type=click.Path(path_type=Path), help="Folder of keys, record and library; else as configured."
)
def serve(
    config: Path | None, host: str | None, port: int | None, admin_port: int | None, state_dir: Path | None
) -> None:
    """Run the gateway until SIGTERM or SIGINT, then let running answers finish within the grace time."""
    from conclave.gateway.telemetry import logs  # noqa: PLC0415  commands load what they need

    gc.disable()  # what is loaded until it serves is no garbage: 0.1 s; the server looks for some from then on
    try:
        with logs.own_stdout() as stream:
            _serve(_settings(config, host=host, port=port, admin_port=admin_port, state_dir=state_dir), stream)
    finally:
        gc.enable()


def _serve(settings: "Settings", stream: TextIO) -> None:
    from conclave.gateway.access.admission import NoKeysError  # noqa: PLC0415  commands load what they need
    from conclave.gateway.app import create_app  # noqa: PLC0415
    from conclave.gateway.errors import Unavailable  # noqa: PLC0415
    from conclave.gateway.serve import Doors, PortTakenError, Server  # noqa: PLC0415
    from conclave.gateway.telemetry import logs  # noqa: PLC0415

    server = settings.server
    logs.configure(level=server.log_level, format=server.log_format, stream=stream)
    doors = Doors(
        host=server.host,
        port=server.port,
        admin_host=server.admin_host,
        admin_port=server.admin_port,
        grace_s=server.grace_s,
        drain_delay_s=server.drain_delay_s,
    )
    serving: list[Bound] = []
    app = create_app(settings)

    def announce(bound: "Bound") -> None:
        serving.append(bound)
        _announce(settings, bound, app.state.replica.pipeline.policy.current.document.experts)

    running = Server(app, doors, announce=announce)
    try:
        running.run()
    except (NoKeysError, PortTakenError, Unavailable) as error:
        raise click.ClickException(str(error)) from error
    except (OSError, ValueError) as error:
        if serving:
            raise
        raise click.ClickException(_why_not_started(error, server.state_dir)) from error
    except Exception as error:
        if type(error).__name__ == "StateError":  # by name: importing it would import SQLAlchemy for every start
            raise click.ClickException(str(error)) from error
        raise


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="The YAML file, as for `conclave serve`.")
def migrate(config: Path | None) -> None:
    """Bring the state database up to date; `serve` does it by itself only for SQLite."""
    settings = _settings(config)
    from conclave.gateway.state.sql import Database, StateError  # noqa: PLC0415  SQLAlchemy, 0.6 s
    from conclave.gateway.state.tables import REVISION  # noqa: PLC0415

    try:
        database = Database.of(settings.server.database_url, settings.server.state_dir)
        before = database.migrate()
    except StateError as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"{database}: " + (f"at {REVISION} already" if before == REVISION else f"{before or 'new'} -> {REVISION}")
    )
    database.close()


@click.command()
def version() -> None:
    """Print the version."""
    click.echo(_version())


def _version() -> str:
    from importlib.metadata import version as installed  # noqa: PLC0415

    return installed("conclave-gateway")


def _settings(config: Path | None, **overrides: object) -> "Settings":
    from conclave.gateway.policy.source import ConfigError  # noqa: PLC0415  pydantic, 0.3 s
    from conclave.gateway.settings import load_settings  # noqa: PLC0415

    try:
        return load_settings(config, **overrides)
    except ConfigError as error:
        raise click.ClickException(
            "\n".join(["the configuration cannot be used", *map(str, error.problems)])
        ) from error


def _why_not_started(error: OSError | ValueError, state_dir: Path) -> str:
    """One line: what hindered the start, and what to do where the error itself does not say it."""
    if isinstance(error, OSError) and error.filename is not None:
        why = f"{error.filename}: {error.strerror}; server.state_dir, {state_dir}, must be a folder of this user's own"
    elif isinstance(error, ValueError) and not str(error).startswith("expert "):
        why = f"{error}; restore the files in {state_dir / 'keys'} from a backup"
    else:
        why = str(error)
    return "cannot start: " + " ".join(why.split())


def _announce(settings: "Settings", bound: "Bound", experts: Iterable[str]) -> None:
    """For the person who started it, on stderr: where it is, who answers, what to do next."""
    from conclave.gateway.serve import url_of  # noqa: PLC0415

    url = url_of(settings.server.host, bound.port)
    metrics = f"{url_of(settings.server.admin_host, bound.admin_port)}/metrics"
    names = ", ".join(experts)
    click.echo(f"Conclave serves {url}/v1 with {names}. Metrics: {metrics}. Stop it with Ctrl-C.", err=True)
    for warning in settings.warnings:
        click.echo(f"  note: {warning}", err=True)
    click.echo(
        f"  try:  curl {url}/v1/chat/completions -H 'content-type: application/json' "
        """-d '{"model": "auto", "messages": [{"role": "user", "content": "What is Conclave?"}]}'""",
        err=True,
    )


def _hand_to_audit(context: click.Context, args: list[str]) -> None:
    """What the commands of `conclave audit` may need and their room does not know: databases, and the policy."""
    from conclave.safety.audit.cli import KEEP_DAYS, TABLES  # noqa: PLC0415  commands load what they need

    context.meta[TABLES] = _witnessed
    if "prune" in args:
        context.meta[KEEP_DAYS] = _keep_days()


def _hand_to_safety(context: click.Context) -> None:
    """What makes tokens of a text for `conclave safety`, and reads policies: whose these are is not for that room."""
    from conclave.safety.cli import IDS  # noqa: PLC0415  commands load what they need
    from conclave.safety.context_cli import ENCODE  # noqa: PLC0415
    from conclave.safety.toolcalls.cli import GATES  # noqa: PLC0415

    context.meta[IDS] = _token_ids
    context.meta[ENCODE] = _encode
    context.meta[GATES] = _tool_gate


def _hand_to_knowledge(context: click.Context) -> None:
    """What turns a text into a vector for `conclave knowledge` and `retrieval`, for the same reason, and what signs."""
    from conclave.retrieval.cli import CHECKER, ENCODER, SIGNER  # noqa: PLC0415  commands load what they need

    context.meta[ENCODER] = _encode
    context.meta[SIGNER] = _signer
    context.meta[CHECKER] = _checker


def _signer(state_dir: Path) -> "SigningKey":
    """The key of the audit record, made if there is none: it signs receipts of what was forgotten, too."""
    from conclave.safety.audit.keys import KEY_FILE, SigningKey  # noqa: PLC0415  commands load what they need

    return SigningKey.open(state_dir / KEY_FILE)


def _checker(state_dir: Path, pem: str | None) -> "Callable[[bytes, str, str], bool]":
    """Whether a message bears the signature of one of these public keys, else of the state folder's own."""
    from conclave.safety.audit.keys import KEY_FILE, SigningKey, is_signed, read_public  # noqa: PLC0415

    if pem is None and not (state_dir / KEY_FILE).exists():
        raise ValueError(f"there is no key in {state_dir / KEY_FILE}; give the gateway's --public-key FILE")
    trusted = read_public(pem) if pem is not None else {SigningKey.open(state_dir / KEY_FILE).public}
    return lambda message, signature, by: is_signed(message, signature, by=by, trusted=trusted)


def _tool_gate(file: Path, tenant: str | None) -> "ToolGate":
    from conclave.gateway.policy.tools_cli import gate_in  # noqa: PLC0415  commands load what they need

    return gate_in(file, tenant)


def _token_ids() -> "Callable[[str], list[int]]":
    from conclave.router.encoder import ARTIFACTS, ENCODER_FILES, Tokens  # noqa: PLC0415  commands load what they need

    return Tokens(ARTIFACTS / ENCODER_FILES[1]).ids


def _encode() -> "Callable[[Sequence[str]], NDArray[np.float32]]":
    from conclave.router.encoder import StaticEncoder  # noqa: PLC0415  commands load what they need

    return StaticEncoder.load().encode


def _hand_to_keys(context: click.Context) -> None:
    """How the commands of `conclave keys` write their rows: the journal is not for their room to know."""
    from conclave.gateway.access.cli import JOURNAL  # noqa: PLC0415  commands load what they need

    context.meta[JOURNAL] = _journal_of


@contextmanager
def _journal_of(server: "ServerSettings") -> "Iterator[Callable[[Mapping[str, object]], object]]":
    """A chain of the command's own in the journal, for the rows that it writes; a running gateway is no hindrance."""
    import structlog  # noqa: PLC0415  keeps `--help` fast

    from conclave.gateway.errors import Unavailable  # noqa: PLC0415
    from conclave.gateway.journal import Journal, JournalOptions  # noqa: PLC0415  cryptography
    from conclave.safety.audit.chain import stamp  # noqa: PLC0415
    from conclave.safety.audit.keys import KEY_FILE, SigningKey  # noqa: PLC0415

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # stdout is the key's
    try:
        signing = SigningKey.open(server.state_dir / KEY_FILE)
        journal = Journal.open(server.state_dir / "journal", signing, JournalOptions(version=_version()))
        journal.ready()
    except (OSError, ValueError, Unavailable) as error:
        raise click.ClickException(f"nothing was changed, because the record cannot be written: {error}") from error
    try:
        yield lambda row: journal.append({**row, "time": stamp(datetime.now(UTC))})
    except Unavailable as error:
        raise click.ClickException(f"the keys were changed, but the row in the record is missing: {error}") from error
    finally:
        journal.close()


def _keep_days() -> int | None:
    """The policy's retention, read from the file alone: pruning asks no server what experts it offers.

    None where no file can be read or none says it: `prune` then asks for what it must know.
    """
    from pydantic import ValidationError  # noqa: PLC0415

    from conclave.gateway.policy.document import PolicyDocument  # noqa: PLC0415
    from conclave.gateway.policy.source import ConfigError, read_source  # noqa: PLC0415
    from conclave.gateway.settings import DEFAULT_FILE  # noqa: PLC0415

    try:
        source = read_source(Path(os.environ.get("CONCLAVE_CONFIG") or DEFAULT_FILE))
        policy = PolicyDocument.model_validate(source.data.get("policy") or {})
    except (ConfigError, ValidationError):
        return None
    return None if source.problems else policy.audit.keep_days


def _witnessed(url: str) -> "Iterator[Witnessed]":
    from conclave.gateway.followers.audit_table import witnessed  # noqa: PLC0415  SQLAlchemy, 0.6 s
    from conclave.gateway.state.sql import StateError  # noqa: PLC0415

    try:
        yield from witnessed(url)
    except StateError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
