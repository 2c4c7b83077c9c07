"""One running replica: all that is opened at start and closed at the end, in order. It decides nothing about a call.

Blocking work (files, the database, models) is done in threads; heavy imports happen here, not when `app` is imported.
"""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from conclave.gateway.access.admission import Access, is_loopback, require_keys_for
from conclave.gateway.access.envelope import Unseal
from conclave.gateway.access.keys import KeyRing, read_pepper
from conclave.gateway.access.room import Room
from conclave.gateway.access.standing import LocalStandings, Vetting
from conclave.gateway.errors import Unavailable
from conclave.gateway.experts.litellm import runtime
from conclave.gateway.experts.openai_http import HttpSessions
from conclave.gateway.followers.calls import KnownCalls
from conclave.gateway.followers.runner import FollowerThread
from conclave.gateway.followers.spans import Spans
from conclave.gateway.knowledge import Knowledge
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.policy.classifier import ClassifierSettings, opened
from conclave.gateway.policy.document import ExpertSettings
from conclave.gateway.policy.hot import HotPolicy, Makings
from conclave.gateway.policy.meter import PolicyMeter
from conclave.gateway.policy.opening import Opener
from conclave.gateway.policy.published import Published, Version
from conclave.gateway.policy.screening import maker
from conclave.gateway.policy.seeking import MakeSeeking
from conclave.gateway.record import Recorder
from conclave.gateway.settings import ServerSettings, Settings
from conclave.gateway.state.counters import LocalCounters
from conclave.gateway.telemetry.names import chosen, provider
from conclave.gateway.telemetry.native import wanted
from conclave.safety.ooda.sanctions import Sanctions
from conclave.safety.toolcalls.confirm import Confirmations

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider
    from prometheus_client import CollectorRegistry

    from conclave.gateway.followers.api import Follower
    from conclave.gateway.followers.ooda import OodaWatch
    from conclave.gateway.journal import Journal
    from conclave.gateway.state.sql import Database
    from conclave.gateway.telemetry.otlp import SpanExport
    from conclave.router.classify import Router

DIGEST_KEY_FILE: Final = Path("keys/digest_key")  # under the state folder; keys the digests of texts in the record
DIGEST_KEY_BYTES: Final = 32
FOLLOW_OUT_S: Final = 1.0  # at stop, for the followers to read the rest of the journal
FLUSH_S: Final = 3.0  # at stop, for the last spans and metrics to reach a collector


@dataclass(frozen=True, slots=True)
class Replica:
    """What serves calls, and what the control plane shows of it."""

    pipeline: Pipeline
    recorder: Recorder
    keys: KeyRing
    journal: "Journal"
    registry: "CollectorRegistry"
    policy: HotPolicy
    calls: KnownCalls
    tracers: "TracerProvider | None" = None  # of the spans of HTTP requests

    def checks(self) -> dict[str, str]:
        """For `/readyz`: each part with `ok`, or what is wrong with it."""
        try:
            self.journal.ready()
            journal = "ok"
        except Unavailable as error:
            journal = error.message
        return {"journal": journal, "keys": self.keys.health, "policy": self.policy.state}


@asynccontextmanager
async def open_replica(settings: Settings, room: Room) -> AsyncIterator[Replica]:
    """A replica for as long as the block runs; the calls that `room` turns away are recorded here.

    Raises NoKeysError, StateError, Unavailable, OSError: whatever hinders the start.
    """
    server = settings.server
    unseal = Unseal()  # first: what is signed from now on can only come here
    async with AsyncExitStack() as stack:
        server.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = await asyncio.to_thread(_open_database, server)
        stack.callback(database.close)
        keys = await _follow_keys(database, server, stack)
        router = await asyncio.to_thread(_load_router, server.classifier)
        sessions = HttpSessions(egress=server.egress.open(settings.trusted_hosts))
        stack.push_async_callback(sessions.aclose)
        registry = await asyncio.to_thread(_new_registry)
        opener = Opener(os.environ, sessions, router.encoder)
        stack.push_async_callback(opener.aclose)
        hot = await asyncio.to_thread(_begin_policy, settings, database, opener, router, registry)
        journal, digest_key = await asyncio.to_thread(_open_journal, server)
        recorder = Recorder(journal.append, digest_key)
        spans = await asyncio.to_thread(_open_exports, server, registry, stack)
        followers = _followers(database, settings, hot.published, registry)
        if spans is not None:
            followers.append(Spans(spans.emit, providers=Providers(hot.published)))
        vetting, ooda = _open_vetting(hot.published, journal, followers)
        ticks = [recorder.tick, lambda: recorder.turned_away(room.collect()), ooda.tick]
        thread = FollowerThread(journal, followers, ticks=ticks)
        thread.start()
        stack.push_async_callback(asyncio.to_thread, _end_record, recorder, journal, thread, room)
        access = Access(
            keys=keys,
            counters=LocalCounters(),
            limits_for=hot.published.limits_for,
            journal_ready=journal.ready,
            allow_anonymous=is_loopback(server.host),
            origins=server.cors.origins,
            vetting=vetting,
        )
        await stack.enter_async_context(hot.following(journal.append, every_s=server.policy_refresh_s))
        if any(expert.kind == "litellm" for expert in hot.published.current.document.experts.values()):
            runtime.shared().begin()  # in a thread, 4 s: the first call need not wait for it
        knowledge = Knowledge(server.state_dir / "knowledge", router.encoder.encode)
        stack.callback(knowledge.close)
        knowledge.begin()
        pipeline = Pipeline(
            access=access,
            policy=hot.published,
            record=recorder,
            digest_key=digest_key,
            classifying=_threads_of(router, server.classifier, stack),
            vetting=vetting,
            unseal=unseal,
            knowledge=knowledge,
            confirmations=Confirmations(digest_key, time.time),
        )
        stack.callback(pipeline.workshop.close)
        calls = KnownCalls(database, recorder.tenant_of)
        tracers = spans.provider if spans is not None else None
        yield Replica(pipeline, recorder, keys, journal, registry, hot, calls, tracers)


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


def _load_router(settings: ClassifierSettings) -> "Router":
    try:
        return opened(settings)
    except (OSError, ValueError) as error:
        raise Unavailable(f"cannot start: {error}") from error


def _threads_of(router: "Router", settings: ClassifierSettings, stack: AsyncExitStack) -> ThreadPoolExecutor | None:
    """Where a slow classifier runs: not where all other calls wait for it."""
    if not router.is_slow:
        return None
    threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="classify")
    stack.callback(threads.shutdown, wait=False, cancel_futures=True)
    return threads


def _new_registry() -> "CollectorRegistry":
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    return CollectorRegistry()


def _begin_policy(
    settings: Settings, database: "Database", opener: Opener, router: "Router", registry: "CollectorRegistry"
) -> HotPolicy:
    from conclave.gateway.policy.store import PolicyStore  # noqa: PLC0415  SQLAlchemy
    from conclave.safety.detect.topics import Space  # noqa: PLC0415  with what needs it

    meter = PolicyMeter(registry)
    store = PolicyStore(database)
    space = Space(router.encode, router.background)
    checks = maker(router.encoder.tokens.ids, space, key=_digest_key(settings.server))
    makings = Makings(
        store,
        opener,
        meter,
        router.classify,
        router.digest,
        teach=router.taught,
        checks=checks,
        seeks=MakeSeeking(router.encoder),
    )
    return HotPolicy(settings, makings)


def _open_journal(server: ServerSettings) -> "tuple[Journal, bytes]":
    from conclave.gateway.journal import Journal, JournalOptions  # noqa: PLC0415  cryptography
    from conclave.safety.audit.keys import KEY_FILE, SigningKey  # noqa: PLC0415

    signing = SigningKey.open(server.state_dir / KEY_FILE)
    options = JournalOptions(version=version("conclave-gateway"), floor_bytes=server.journal_min_free_bytes)
    return Journal.open(server.state_dir / "journal", signing, options), _digest_key(server)


def _digest_key(server: ServerSettings) -> bytes:
    from conclave.safety.audit.keys import keep_secret  # noqa: PLC0415  cryptography

    return keep_secret(server.state_dir / DIGEST_KEY_FILE, lambda: secrets.token_bytes(DIGEST_KEY_BYTES))


@dataclass(frozen=True, slots=True)
class Providers(Mapping[str, str]):
    """`gen_ai.provider.name` by expert, of the policy in force and of those before it that were asked for."""

    policy: Published
    known: dict[str, tuple[ExpertSettings, str]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        expert = self.policy.current.document.experts.get(name)
        if expert is not None and (name not in self.known or self.known[name][0] is not expert):
            self.known[name] = expert, provider(expert.kind, expert.resolved_deployments()[0].model or "")
        return self.known[name][1]

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)


def _followers(
    database: "Database", settings: Settings, policy: Published, registry: "CollectorRegistry"
) -> "list[Follower]":
    """Who reads the journal later; `registry` is what `/metrics` shows."""
    from conclave.gateway.followers.audit_table import AuditTable  # noqa: PLC0415  SQLAlchemy
    from conclave.gateway.followers.counters import CallCounters  # noqa: PLC0415
    from conclave.gateway.followers.feedback_table import FeedbackTable  # noqa: PLC0415
    from conclave.gateway.followers.shadow import ShadowScores  # noqa: PLC0415
    from conclave.gateway.policy.past import PastVersions  # noqa: PLC0415
    from conclave.gateway.policy.store import PolicyStore  # noqa: PLC0415

    def tags() -> Mapping[str, tuple[str, ...]]:
        return policy.current.document.tags

    past = PastVersions(PolicyStore(database))

    def version(digest: str) -> Version | None:
        return policy.current if policy.current.digest == digest else past.find(digest)

    metrics = chosen(settings.server.telemetry.gen_ai_metrics)
    counters = CallCounters(registry, providers=Providers(policy), tags=tags, metrics=metrics)
    return [AuditTable(database), counters, FeedbackTable(database), ShadowScores(database, version)]


def _open_vetting(policy: Published, journal: "Journal", followers: "list[Follower]") -> "tuple[Vetting, OodaWatch]":
    """What knows how far callers are trusted, and the loop over the record; both follow it from now on."""
    from conclave.gateway.followers.ooda import OodaWatch  # noqa: PLC0415  as all followers
    from conclave.gateway.followers.standing import KeyStandings  # noqa: PLC0415

    standings, sanctions = LocalStandings(), Sanctions()
    watch = OodaWatch(orders=lambda: policy.current.orders, sanctions=sanctions, append=journal.append)
    followers += [KeyStandings(standings), watch]
    return Vetting(standings, sanctions, policy.bands_for), watch


def _open_exports(server: ServerSettings, registry: "CollectorRegistry", stack: AsyncExitStack) -> "SpanExport | None":
    """What goes to a collector, if anything does; `stack` sends what is left, after the followers have ended."""
    telemetry, limit_s = server.telemetry, min(server.grace_s, FLUSH_S)
    spans = None
    if telemetry.spans and wanted("TRACES", os.environ):
        from conclave.gateway.telemetry.otlp import SpanExport  # noqa: PLC0415  the extra `otlp`

        spans = SpanExport.open()
        stack.push_async_callback(asyncio.to_thread, spans.close, limit_s)
    if telemetry.otlp_metrics and wanted("METRICS", os.environ):
        from conclave.gateway.telemetry.push import MetricPush  # noqa: PLC0415  the extra `otlp`

        push = MetricPush.open(registry)
        stack.push_async_callback(asyncio.to_thread, push.close, limit_s)
    return spans


def _end_record(recorder: Recorder, journal: "Journal", thread: FollowerThread, room: Room) -> None:
    """The last counts, the closing row with its signature, and then what the followers have not read yet."""
    recorder.turned_away(room.collect())
    recorder.close()
    journal.close()
    thread.stop(limit_s=FOLLOW_OUT_S)
