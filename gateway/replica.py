"""One running replica: all that is opened at start and closed at the end, in order. It decides nothing about a call.

Blocking work (files, the database, models) is done in threads; heavy imports happen here, not when `app` is imported.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from conclave.gateway.access.admission import Access, is_loopback, require_keys_for
from conclave.gateway.access.keys import KeyRing, read_pepper
from conclave.gateway.access.room import Room
from conclave.gateway.errors import Unavailable
from conclave.gateway.experts.configured import configured
from conclave.gateway.experts.openai_http import HttpSessions
from conclave.gateway.followers.runner import FollowerThread
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.policy.published import Published, Version
from conclave.gateway.record import Recorder
from conclave.gateway.settings import ServerSettings, Settings
from conclave.gateway.state.counters import LocalCounters
from conclave.gateway.telemetry.names import PROVIDERS

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from conclave.gateway.followers.api import Follower
    from conclave.gateway.journal import Journal
    from conclave.gateway.state.sql import Database
    from conclave.router.classify import Router

DIGEST_KEY_FILE: Final = Path("keys/digest_key")  # under the state folder; keys the digests of texts in the record
DIGEST_KEY_BYTES: Final = 32
FOLLOW_OUT_S: Final = 1.0  # at stop, for the followers to read the rest of the journal


@dataclass(frozen=True, slots=True)
class Replica:
    """What serves calls, and what the control plane shows of it."""

    pipeline: Pipeline
    recorder: Recorder
    keys: KeyRing
    journal: "Journal"
    registry: "CollectorRegistry"

    def checks(self) -> dict[str, str]:
        """For `/readyz`: each part with `ok`, or what is wrong with it."""
        try:
            self.journal.ready()
            journal = "ok"
        except Unavailable as error:
            journal = error.message
        return {"journal": journal, "keys": self.keys.health}


@asynccontextmanager
async def open_replica(
    settings: Settings, room: Room | None = None, draining: Callable[[], bool] = lambda: False
) -> AsyncIterator[Replica]:
    """A replica for as long as the block runs. Raises NoKeysError, StateError, OSError: whatever hinders the start."""
    server = settings.server
    async with AsyncExitStack() as stack:
        server.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = await asyncio.to_thread(_open_database, server)
        stack.callback(database.close)
        keys = await _follow_keys(database, server, stack)
        router = await asyncio.to_thread(_load_router)
        sessions = HttpSessions()
        stack.push_async_callback(sessions.aclose)
        experts = configured(settings.policy, os.environ, sessions)
        stack.push_async_callback(experts.aclose)
        policy = Published(Version(settings.policy, experts, classify=router.classify, model_digest=router.digest))
        journal, digest_key = await asyncio.to_thread(_open_journal, server)
        recorder = Recorder(journal.append, digest_key)
        registry, followers = _followers(database, settings)
        thread = FollowerThread(journal, followers, ticks=[recorder.tick])
        thread.start()
        stack.push_async_callback(asyncio.to_thread, _end_record, recorder, journal, thread)
        access = Access(
            keys=keys,
            counters=LocalCounters(),
            limits_for=policy.limits_for,
            journal_ready=journal.ready,
            allow_anonymous=is_loopback(server.host),
            origins=server.cors.origins,
        )
        pipeline = Pipeline(access=access, policy=policy, record=recorder, digest_key=digest_key)
        yield Replica(pipeline, recorder, keys, journal, registry)


def _open_database(server: ServerSettings) -> "Database":
    from conclave.gateway.state.sql import Database  # noqa: PLC0415  SQLAlchemy: 0.4 s

    return Database.of(server.database_url, server.state_dir).open()


async def _follow_keys(database: "Database", server: ServerSettings, stack: AsyncExitStack) -> KeyRing:
    from conclave.gateway.access.key_table import KeyTable  # noqa: PLC0415  SQLAlchemy

    pepper = await asyncio.to_thread(read_pepper, server.state_dir)
    keys = KeyRing(KeyTable(database), pepper)
    await stack.enter_async_context(keys.following(every_s=server.keys_refresh_s))
    require_keys_for(server.host, keys)
    return keys


def _load_router() -> "Router":
    from conclave.router.classify import Router  # noqa: PLC0415  numpy, tokenizers

    return Router.load()


def _open_journal(server: ServerSettings) -> "tuple[Journal, bytes]":
    from conclave.gateway.journal import Journal, JournalOptions  # noqa: PLC0415  cryptography
    from conclave.safety.audit.keys import KEY_FILE, SigningKey, keep_secret  # noqa: PLC0415

    signing = SigningKey.open(server.state_dir / KEY_FILE)
    digest_key = keep_secret(server.state_dir / DIGEST_KEY_FILE, lambda: secrets.token_bytes(DIGEST_KEY_BYTES))
    options = JournalOptions(version=version("conclave-gateway"), floor_bytes=server.journal_min_free_bytes)
    return Journal.open(server.state_dir / "journal", signing, options), digest_key


def _followers(database: "Database", settings: Settings) -> "tuple[CollectorRegistry, list[Follower]]":
    """Who reads the journal later, and the registry that `/metrics` shows."""
    from opentelemetry.trace import get_tracer  # noqa: PLC0415
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from conclave.gateway.followers.audit_table import AuditTable  # noqa: PLC0415  SQLAlchemy
    from conclave.gateway.followers.counters import CallCounters  # noqa: PLC0415
    from conclave.gateway.followers.spans import Spans  # noqa: PLC0415

    registry = CollectorRegistry()
    providers = {name: PROVIDERS[expert.kind] for name, expert in settings.policy.experts.items()}
    followers: list[Follower] = [AuditTable(database), CallCounters(registry, providers=providers)]
    if settings.server.telemetry.spans:
        followers.append(Spans(get_tracer("conclave"), providers=providers))
    return registry, followers


def _end_record(recorder: Recorder, journal: "Journal", thread: FollowerThread) -> None:
    """The last counts, the closing row with its signature, and then what the followers have not read yet."""
    recorder.close()
    journal.close()
    thread.stop(limit_s=FOLLOW_OUT_S)
