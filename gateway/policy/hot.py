"""Keeps the policy in force up to date while the gateway serves: the last change wins, wherever it was made.

Changes come from the configuration file and the packs of signatures that it names, from the table of versions (a
rollback, another replica) and from key files.
What cannot be used is said in the log and in `/readyz`, and the version before it stays. A call never waits for any of
this: a new version is made ready on a thread, and then one attribute is assigned.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from conclave.gateway.errors import Unavailable
from conclave.gateway.policy import expecting
from conclave.gateway.policy.canonical import digest_of
from conclave.gateway.policy.choosing import Classify
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import forbidden_addresses
from conclave.gateway.policy.meter import DIGEST_CHARS, PolicyMeter
from conclave.gateway.policy.opening import Keys, Opened, Opener, is_lost, keys_of
from conclave.gateway.policy.own import Teach
from conclave.gateway.policy.published import Published, Version
from conclave.gateway.policy.screening import MakeCheck
from conclave.gateway.policy.seeking import MakeSeeking
from conclave.gateway.policy.source import ConfigError, Problem, dotted
from conclave.gateway.policy.watch import LOOK_S, WatchedFile
from conclave.gateway.settings import Settings, read_again
from conclave.gateway.state.apart import apart
from conclave.safety.audit.chain import stamp

if TYPE_CHECKING:
    from conclave.gateway.policy.store import PolicyStore, StoredVersion

STOP_S: Final = 1.0  # at stop, for a look that is under way
MOST_PROBLEMS: Final = 20  # of one file that are logged
DEFAULTS: Final = "the defaults"  # what a version came from where there is no file

log = structlog.get_logger()


class LackingError(ConfigError):
    """The file is right, but a key that it names is not there yet, or a pack of signatures is wrong."""


class Append(Protocol):
    """Where rows of the record go: `Journal.append`."""

    def __call__(self, row: Mapping[str, Any], /) -> int: ...


@dataclass(frozen=True, slots=True)
class Makings:
    """What versions are made of, kept in and told to."""

    store: "PolicyStore"
    opener: Opener
    meter: PolicyMeter
    classify: Classify
    model_digest: str
    teach: Teach | None = None
    checks: MakeCheck | None = None
    seeks: MakeSeeking | None = None


class HotPolicy:
    """`published` is what calls read. All else here blocks, but for `following` and `state`: use it from a thread."""

    def __init__(self, settings: Settings, makings: Makings, *, now_s: Callable[[], float] = time.perf_counter) -> None:
        """The version to begin with. Raises OSError or ValueError for a key that cannot be read or sent."""
        self._settings = settings
        self._makings = makings
        self._now_s = now_s
        self._file = WatchedFile(settings.source, settings.seen) if settings.source is not None else None
        self._packs = _packs_of(settings)
        self._file_digest, self._policy_said = digest_of(settings.policy), settings.policy_said
        self._read_last = settings
        self._file_again = False
        self._trouble: dict[str, str] = {}  # by where a change came from: why it was not taken
        self._waiting: tuple[str, ...] = ()  # settings of the server half that changed
        self._record: Append | None = None
        self._allowed = settings.server.egress.open(settings.trusted_hosts).allowed
        opened, document = makings.opener.open(settings.policy), settings.policy
        stored = makings.store.hear_file(document, source=str(settings.source or DEFAULTS))
        if stored.digest != self._file_digest:  # a rollback, or what another replica published
            document = self._first(stored)
            opened = makings.opener.open(document, opened)
        self._stored, self._opened = stored, opened
        self._keys_seen: Mapping[str, Keys] = opened.keys
        self.published = Published(self._version(stored, document, opened))
        makings.meter.in_force(stored.number, stored.digest)
        self._log(stored)

    @property
    def state(self) -> str:
        """`ok`, or a note for people: what was not taken, or waits for a restart. It hinders no call."""
        if self._trouble:  # a copy: a thread may write to it meanwhile
            return f"note: a change was not taken ({', '.join(list(self._trouble))}); the log says why"
        return f"note: server.{', server.'.join(self._waiting)}: waits for a restart" if self._waiting else "ok"

    @asynccontextmanager
    async def following(self, record: Append, *, every_s: float) -> AsyncIterator[None]:
        """Record the version in force, and take every change until the block ends.

        The file is looked at a few times a second, the table and the key files each `every_s`, in a thread that the end
        waits for briefly: a database may have stopped answering.
        """
        self._record = record
        await asyncio.to_thread(self._write_row, self._stored)
        stopping = asyncio.Event()
        task = asyncio.create_task(self._follow(stopping, every_s), name="policy")
        try:
            yield
        finally:
            stopping.set()
            await asyncio.wait({task}, timeout=STOP_S)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _follow(self, stopping: asyncio.Event, every_s: float) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + every_s
        await apart(self.published.current.warm, name="policy")  # while the gateway serves already
        while not stopping.is_set():
            everything = loop.time() >= due_s
            if everything:
                due_s = loop.time() + every_s
            if everything or self._file is not None:
                await apart(partial(self.look, everything=everything), name="policy")
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), min(LOOK_S, every_s))

    def look(self, *, everything: bool = True) -> None:
        """Look at the file and its packs, unless told otherwise also at the table and the key files; take changes."""
        changed = [one.path for one in (self._file, *self._packs) if one is not None and one.changed()]
        if self._file is not None and (changed or (everything and self._file_again)):
            self._attempt("file", self._take_file)
        if everything:
            self._attempt("table", self._take_newest)
            self._attempt("keys", self._take_keys)

    def _take_file(self) -> None:
        assert self._file is not None  # noqa: S101  as `look` has seen
        began_s = self._now_s()
        seen = self._file.take()
        if isinstance(seen, str):
            raise ConfigError((Problem(str(self._file.path), "", f"cannot be read: {seen}"),))
        for pack in self._packs:
            pack.take()
        settings = self._read_last = self._read_file(self._file.path)
        self._packs = _packs_of(settings)
        digest = digest_of(settings.policy)
        if digest != self._file_digest:
            self._refuse_half_a_file(settings)
            self._refuse_addresses(settings.policy)
            opened = self._open(settings)
            stored = self._makings.store.hear_file(settings.policy, source=str(self._file.path))
            self._file_digest, self._policy_said = digest, settings.policy_said
            if stored.digest == digest:
                self._install(stored, settings.policy, opened, began_s)
            for warning in settings.warnings:
                log.warning("policy.warning", reason=str(warning))
        self._note_server(settings)

    def _read_file(self, path: Path) -> Settings:
        """What it says now, with the packs that it names. Raises ConfigError."""
        try:
            return read_again(self._read_last)
        except ConfigError as error:
            if any(problem.where.startswith(f"{path}:") or not problem.where for problem in error.problems):
                raise
            raise LackingError(error.problems) from error  # a pack, or the environment: it may be mended there

    def _open(self, settings: Settings) -> Opened:
        try:
            return self._makings.opener.open(settings.policy, self._opened)
        except OSError as error:
            lacking = tuple(warning for warning in settings.warnings if warning.message.startswith("the key file"))
            if not lacking:
                raise
            raise LackingError(lacking) from error

    def _refuse_half_a_file(self, settings: Settings) -> None:
        """A file without a policy half is valid, but in a running gateway it is one that is still being written."""
        if self._policy_said and not settings.policy_said:
            words = "the policy half is gone; write `policy: {}` if the defaults are meant"
            raise ConfigError((Problem(f"{settings.source}:1", "", words),))

    def _take_newest(self) -> None:
        began_s = self._now_s()
        stored = self._makings.store.newest_but(self._stored)
        if stored is None:
            return
        try:
            document = self._read(stored)
            opened = self._makings.opener.open(document, self._opened)
        except (OSError, ValueError) as error:
            raise ValueError(f"version {stored.number} of the policy: {error}") from error
        self._install(stored, document, opened, began_s)

    def _read(self, stored: "StoredVersion") -> PolicyDocument:
        """The document. Raises ValueError if it cannot be read, or names an address where no expert may be."""
        document = stored.read()
        self._refuse_addresses(document)
        return document

    def _first(self, stored: "StoredVersion") -> PolicyDocument:
        """As `_read`, of the version to begin with. Raises StateError."""
        try:
            return self._read(stored)
        except ValueError as error:
            from conclave.gateway.state.sql import StateError  # noqa: PLC0415  SQLAlchemy

            raise StateError(
                f"version {stored.number} of the policy, which is in force, {error}; "
                "go back to another one: `conclave policy list`, `conclave policy rollback`"
            ) from error

    def _refuse_addresses(self, document: PolicyDocument) -> None:
        """By what the running server half allows: a changed one waits for a restart."""
        for problem in forbidden_addresses(document, self._allowed, dotted):
            raise ValueError(f"cannot be used: {problem.key}: {problem.message}")

    def _take_keys(self) -> None:
        """A key counts once two looks in a row see it, as a change of the policy's file does."""
        document, held = self.published.current.document, self._opened.keys
        before, self._keys_seen = self._keys_seen, keys_of(document)
        changed = {name: keys for name, keys in self._keys_seen.items() if keys != held[name]}
        lost = [name for name, keys in changed.items() if is_lost(held[name], keys)]
        rotated = {name: keys for name, keys in changed.items() if name not in lost and before.get(name) == keys}
        if rotated:
            self._opened = self._makings.opener.open(document, self._opened, rotated=rotated)
            self.published.current = self._version(self._stored, document, self._opened)
            log.info("policy.keys_read", experts=list(rotated))
        if lost:
            raise ValueError(
                f"expert {', '.join(lost)}: a key file is empty or gone; the key that it held stays in use"
            )

    def _install(self, stored: "StoredVersion", document: PolicyDocument, opened: Opened, began_s: float) -> None:
        """Put the version in force, unless it is already."""
        if (stored.number, stored.digest) == (self._stored.number, self._stored.digest):
            return
        version = self._version(stored, document, opened)
        self._write_row(stored)  # first: no call of the new version stands before it
        self.published.current = version
        self._stored, self._opened = stored, opened
        took_s = self._now_s() - began_s
        self._makings.meter.in_force(stored.number, stored.digest)
        self._makings.meter.swapped(stored.origin, took_s)
        self._log(stored, took_ms=round(took_s * 1000, 1))

    def _version(self, stored: "StoredVersion", document: PolicyDocument, opened: Opened) -> Version:
        return Version(
            document,
            opened.pool,
            classify=self._makings.classify,
            model_digest=self._makings.model_digest,
            heads=expecting.opened,
            number=stored.number,
            digest=stored.digest,
            teach=self._makings.teach,
            checks=self._makings.checks,
            seeks=self._makings.seeks,
        )

    def _write_row(self, stored: "StoredVersion") -> None:
        row = {"kind": "policy", "time": stamp(datetime.now(UTC)), "number": stored.number, "digest": stored.digest}
        row |= {"origin": stored.origin, "source": stored.source, "author": stored.author}
        if self._record is not None:
            try:
                self._record(row)
            except Unavailable:  # the journal keeps the row until it can be written
                log.warning("record.waits", kind="policy")

    def _log(self, stored: "StoredVersion", *, took_ms: float | None = None) -> None:
        log.info(
            "policy.in_force",
            number=stored.number,
            digest=stored.digest[:DIGEST_CHARS],
            origin=stored.origin,
            source=stored.source,
            author=stored.author,
            took_ms=took_ms,
        )

    def _note_server(self, settings: Settings) -> None:
        now, running = settings.server, self._settings.server
        waiting = tuple(name for name in type(now).model_fields if getattr(now, name) != getattr(running, name))
        if waiting and waiting != self._waiting:
            log.warning("server.needs_restart", settings=waiting)
        self._waiting = waiting

    def _attempt(self, source: str, take: Callable[[], None]) -> None:
        """`take`; what hinders it is said once, and tried again later unless only another edit can mend it."""
        again = True
        try:
            take()
        except ConfigError as error:
            again = isinstance(error, LackingError)
            self._reject(source, error.problems)
        except (OSError, ValueError) as error:  # the policy is right, but a key or a folder is not there
            self._reject(source, [Problem("", "", str(error))])
        except Exception as error:  # noqa: BLE001  this task's edge: a database out of reach, for example
            if source not in self._trouble:
                log.warning("policy.look_failed", source=source, error=type(error).__name__)
            self._trouble[source] = type(error).__name__
        else:
            again = False
            if self._trouble.pop(source, None) is not None:
                log.info("policy.accepted_again", source=source)
        if source == "file":
            self._file_again = again

    def _reject(self, source: str, problems: Iterable[Problem]) -> None:
        reasons = [str(problem) for problem in problems][:MOST_PROBLEMS]
        said = "\n".join(reasons)
        if said == self._trouble.get(source):
            return
        self._trouble[source] = said
        self._makings.meter.rejected(source)
        for reason in reasons:
            log.warning("policy.rejected", source=source, reason=reason)


def _packs_of(settings: Settings) -> tuple[WatchedFile, ...]:
    """The files of signatures that the policy was read from."""
    return tuple(WatchedFile(path, seen) for path, seen in settings.packs.items())
