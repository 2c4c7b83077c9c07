"""The policy in force follows its file, the table and the key files; what cannot be used leaves it as it was."""

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from conclave.gateway.errors import Unavailable
from conclave.gateway.experts.openai_http import HttpSessions
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.hot import HotPolicy, Makings
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.meter import PolicyMeter
from conclave.gateway.policy.opening import Opener
from conclave.gateway.policy.store import PolicyStore, StoredVersion
from conclave.gateway.settings import load_settings
from conclave.gateway.state.sql import Database, StateError

from .conftest import classification

FILE = """\
server: {{port: 8080}}
policy:
  name: {name}
  experts:
    fast: {{base_url: "http://127.0.0.1:1/v1", model: {model}}}
  default: [{default}]
"""
UNKNOWN_EXPERT = FILE.format(name="a", model="m", default="fst")


@dataclass
class Gateway:
    """One replica's policy, with its file."""

    folder: Path
    database: Database
    opener: Opener
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    rows: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "conclave.yaml"

    @property
    def store(self) -> PolicyStore:
        return PolicyStore(self.database)

    def write(self, name: str = "a", *, model: str = "m", default: str = "fast") -> None:
        self.file.write_text(FILE.format(name=name, model=model, default=default))

    def begin(self, **overrides: Any) -> HotPolicy:
        settings = load_settings(self.file if self.file.exists() else None, **overrides)
        meter = PolicyMeter(self.registry)
        return HotPolicy(settings, Makings(self.store, self.opener, meter, lambda _: classification(), "m" * 64))

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def append(self, row: Mapping[str, Any]) -> int:
        self.rows.append(row)
        return len(self.rows)


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST", "VLLM_BASE_URL", "CONCLAVE_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    database, sessions = Database.of(None, tmp_path / "state").open(), HttpSessions()
    made = Gateway(tmp_path, database, Opener({}, sessions))
    made.write()
    yield made
    await made.opener.aclose()
    await sessions.aclose()
    database.close()


def look(hot: HotPolicy) -> None:
    """Twice: a change counts once it stands."""
    hot.look()
    hot.look()


def in_force(hot: HotPolicy) -> tuple[int, str]:
    return hot.published.current.number, hot.published.current.document.name


def rejections(logged: list[Any]) -> list[tuple[str, str]]:
    return [(line["source"], line["reason"]) for line in logged if line["event"] == "policy.rejected"]


async def test_a_changed_file_is_a_new_version_and_the_same_file_none(gateway: Gateway) -> None:
    hot = gateway.begin()
    first = hot.published.current
    assert in_force(hot) == (1, "a")
    gateway.write("b")
    look(hot)
    assert in_force(hot) == (2, "b")
    assert first.document.name == "a", "who took the old version keeps it"
    gateway.file.write_text("# a comment\n" + gateway.file.read_text())
    look(hot)
    assert (in_force(hot), len(gateway.store.last(100))) == ((2, "b"), 2)
    assert gateway.metric("conclave_policy_swaps_total", conclave_policy_origin="file") == 1
    digest = hot.published.current.digest[:12]
    assert gateway.metric("conclave_policy_version", conclave_policy_digest=digest) == 2
    assert gateway.metric("conclave_policy_version", conclave_policy_digest=first.digest[:12]) is None
    assert gateway.metric("conclave_policy_swap_duration_seconds_count") == 1


async def test_an_old_version_is_forgotten_once_no_call_holds_it(gateway: Gateway) -> None:
    hot = gateway.begin()
    call = hot.published.current
    old = weakref.ref(call)
    gc.disable()  # a cycle would keep it until a collection, and for ever what was there at start
    try:
        gateway.write("b", model="other")
        look(hot)
        assert old() is call
        del call
        assert old() is None
    finally:
        gc.enable()


async def test_experts_that_did_not_change_are_the_same_in_the_new_version(gateway: Gateway) -> None:
    hot = gateway.begin()
    before = hot.published.current.experts.tables
    gateway.write("b")
    look(hot)
    assert dict(hot.published.current.experts.tables) == dict(before)
    gateway.write("b", model="other")
    look(hot)
    assert hot.published.current.experts.tables["fast"] is not before["fast"]
    assert hot.published.current.experts.tables["quoting"] is before["quoting"]


def empty(path: Path) -> None:
    path.write_bytes(b"")


def only_a_beginning(path: Path) -> None:
    path.write_text("server: {port: 8080}\n")


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def large(path: Path) -> None:
    path.write_bytes(b"# " + b"x" * 2_000_000)


def not_utf8(path: Path) -> None:
    path.write_bytes(b"policy:\n  name: a\n  # \xff\n")


def cut_short(path: Path) -> None:
    path.write_text(path.read_text()[:70])


def unknown_expert(path: Path) -> None:
    path.write_text(UNKNOWN_EXPERT)


def bad_server(path: Path) -> None:
    path.write_text("server: {prot: 1}\npolicy: {name: b}\n")


BAD: list[tuple[Callable[[Path], None], str]] = [
    (empty, "conclave.yaml:1: the policy half is gone; write `policy: {}` if the defaults are meant"),
    (only_a_beginning, "conclave.yaml:1: the policy half is gone; write `policy: {}` if the defaults are meant"),
    (Path.unlink, "conclave.yaml: cannot be read: No such file or directory"),
    (directory, "conclave.yaml: cannot be read: Is a directory"),
    (pipe, "conclave.yaml: cannot be read: Not a file"),
    (large, "conclave.yaml: is larger than 1048576 bytes"),
    (not_utf8, "conclave.yaml:3: is not UTF-8"),
    (cut_short, "conclave.yaml:5: is not YAML: did not find expected node content"),
    (unknown_expert, "conclave.yaml:6: policy.default[0]: unknown expert 'fst'; did you mean 'fast'?"),
    (bad_server, "conclave.yaml:1: server.prot: unknown key; did you mean 'port'?"),
]


@pytest.mark.parametrize(("spoil", "reason"), BAD, ids=[spoil.__name__ for spoil, _ in BAD])
async def test_a_file_that_cannot_be_used_is_rejected_once_with_its_line_and_the_policy_stays(
    gateway: Gateway, spoil: Callable[[Path], None], reason: str
) -> None:
    hot = gateway.begin()
    before = hot.published.current
    assert hot.state == "ok"
    spoil(gateway.file)
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            look(hot)
    assert rejections(logged) == [("file", f"{gateway.folder}/{reason}")]
    assert hot.published.current is before
    assert len(gateway.store.last(100)) == 1
    assert hot.state == "note: a change was not taken (file); the log says why"
    assert gateway.metric("conclave_policy_rejections_total", conclave_policy_source="file") == 1


@pytest.mark.parametrize("spoil", [unknown_expert, Path.unlink, directory])
async def test_a_file_that_was_mended_is_taken_and_the_note_is_gone(
    gateway: Gateway, spoil: Callable[[Path], None]
) -> None:
    hot = gateway.begin()
    spoil(gateway.file)
    look(hot)
    if gateway.file.is_dir():
        gateway.file.rmdir()
    gateway.write("b")
    look(hot)
    assert (in_force(hot), hot.state) == ((2, "b"), "ok")


async def test_a_file_that_says_again_what_is_in_force_ends_the_note(gateway: Gateway) -> None:
    hot = gateway.begin()
    unknown_expert(gateway.file)
    look(hot)
    gateway.write()
    look(hot)
    assert (in_force(hot), hot.state) == ((1, "a"), "ok")


async def test_a_half_written_file_is_not_read_before_it_stands(gateway: Gateway) -> None:
    """Each prefix that is YAML would be a policy of its own."""
    hot = gateway.begin()
    whole = FILE.format(name="b", model="m", default="quoting")
    with structlog.testing.capture_logs() as logged:
        for end in range(10, len(whole) + 1, 10):
            gateway.file.write_text(whole[:end])
            hot.look(everything=False)
        gateway.file.write_text(whole)
        assert in_force(hot) == (1, "a")
        look(hot)
    assert (in_force(hot), rejections(logged)) == ((2, "b"), [])


async def test_a_file_that_never_had_a_policy_half_may_go_on_so(gateway: Gateway) -> None:
    gateway.file.write_text("server: {port: 8080}\n")
    hot = gateway.begin()
    gateway.file.write_text("server: {port: 8082}\n")
    look(hot)
    assert (in_force(hot), hot.state) == ((1, "default"), "note: server.port: waits for a restart")
    gateway.write("b")
    look(hot)
    assert in_force(hot) == (2, "b")
    only_a_beginning(gateway.file)
    look(hot)
    assert in_force(hot) == (2, "b")


async def test_the_server_half_waits_for_a_restart_and_the_policy_half_does_not(gateway: Gateway) -> None:
    hot = gateway.begin(port=9000)  # a command's option is no change of the file
    gateway.write("b")
    look(hot)
    assert hot.state == "ok"
    gateway.file.write_text(FILE.format(name="c", model="m", default="fast").replace("port: 8080", "grace_s: 1"))
    with structlog.testing.capture_logs() as logged:
        look(hot)
        look(hot)
    assert in_force(hot) == (3, "c")
    assert [line["settings"] for line in logged if line["event"] == "server.needs_restart"] == [("grace_s",)]
    assert hot.state == "note: server.grace_s: waits for a restart"


async def test_a_server_that_is_down_during_an_edit_keeps_its_expert(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.file.write_text("policy: {name: a}\n")
    with listing(b'{"data": [{"id": "llama3.2"}]}') as url:
        monkeypatch.setenv("OLLAMA_HOST", url)
        hot = gateway.begin()
    before = hot.published.current.experts.tables["ollama"]
    for name in ("b", "c"):
        gateway.file.write_text(f"policy: {{name: {name}, default: [ollama]}}\n")
        look(hot)
        assert (in_force(hot)[1], hot.state) == (name, "ok")
        assert hot.published.current.experts.tables["ollama"] is before


async def test_a_server_that_comes_up_later_is_found_by_an_edit_and_stays(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.file.write_text("policy: {name: a}\n")
    with listing(b"") as url:
        monkeypatch.setenv("OLLAMA_HOST", url)
        hot = gateway.begin()
    assert "ollama" not in hot.published.current.experts.tables
    with listing(b'{"data": [{"id": "llama3.2"}]}', port=int(url.rpartition(":")[2])):
        gateway.file.write_text("policy: {name: b}\n")
        look(hot)
    gateway.file.write_text("policy: {name: c}\n")
    look(hot)
    assert in_force(hot)[1] == "c"
    assert hot.published.current.document.experts["ollama"].model == "llama3.2"


@contextmanager
def listing(models: bytes, *, port: int = 0) -> Iterator[str]:
    """A server that lists these models while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(models)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", port), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


async def test_a_rollback_in_the_table_takes_effect_and_outlives_a_restart(gateway: Gateway) -> None:
    hot = gateway.begin()
    gateway.write("b")
    look(hot)
    first = gateway.store.get(1)
    assert first is not None
    gateway.store.add(first.read(), origin="rollback", source="version 1", author="ann")
    hot.look()
    assert in_force(hot) == (3, "a")
    gateway.registry = CollectorRegistry()
    assert in_force(gateway.begin()) == (3, "a")
    gateway.write("c")
    gateway.registry = CollectorRegistry()
    assert in_force(gateway.begin()) == (4, "c"), "the file says something new"


async def test_two_replicas_end_at_the_same_version_whoever_wrote_last(gateway: Gateway, tmp_path: Path) -> None:
    here = gateway.begin()
    other = Gateway(tmp_path / "other", gateway.database, gateway.opener)
    other.folder.mkdir()
    other.write()
    there = other.begin()
    gateway.write("b")
    look(here)
    there.look()
    other.write("c")
    look(there)
    here.look()
    assert in_force(here) == in_force(there) == (3, "c")
    for replica in (gateway, other):  # the same change of a shared file, seen by both
        replica.write("d")
    look(here)
    look(there)
    assert in_force(here) == in_force(there) == (4, "d")


async def test_a_version_that_this_replica_cannot_open_is_noted_until_it_can(gateway: Gateway, tmp_path: Path) -> None:
    hot = gateway.begin()
    key = tmp_path / "key"
    published = gateway.file.read_text().replace("model: m", f"model: m, api_key_file: {key}")
    gateway.store.add(_document(published, tmp_path), origin="publish", source="dashboard", author="ann")
    with structlog.testing.capture_logs() as logged:
        look(hot)
    assert in_force(hot) == (1, "a")
    ((source, reason),) = rejections(logged)
    assert (source, reason.startswith("version 2 of the policy: expert fast: api_key_file")) == ("table", True)
    assert hot.state.startswith("note: ")
    key.write_text("k")
    hot.look()
    assert (in_force(hot), hot.state) == ((2, "a"), "ok")


def _document(file: str, folder: Path) -> Any:
    path = folder / "published.yaml"
    path.write_text(file)
    return load_settings(path).policy


async def test_a_file_whose_key_is_missing_is_taken_as_soon_as_the_key_is_there(
    gateway: Gateway, tmp_path: Path
) -> None:
    hot = gateway.begin()
    key = tmp_path / "key"
    gateway.file.write_text(gateway.file.read_text().replace("model: m", f"model: m, api_key_file: {key}"))
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            look(hot)
    assert in_force(hot) == (1, "a")
    ((_, reason),) = rejections(logged)
    assert reason == f"{gateway.file}:5: policy.experts.fast: the key file {key} is not there"
    key.write_text("k")
    hot.look()
    assert (in_force(hot)[0], hot.state) == (2, "ok")


async def test_a_rotated_key_is_used_without_a_new_version(gateway: Gateway, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k1")
    gateway.file.write_text(gateway.file.read_text().replace("model: m", f"model: m, api_key_file: {key}"))
    hot = gateway.begin()
    before = hot.published.current
    key.write_text("")
    hot.look()
    assert hot.published.current is before, "a key that is being written is not lost meanwhile"
    assert hot.state.startswith("note: ")
    key.write_text("k2")
    with structlog.testing.capture_logs() as logged:
        look(hot)
    after = hot.published.current
    assert (after.number, after.digest, hot.state) == (before.number, before.digest, "ok")
    assert key_of(after.experts) == "k2"
    assert key_of(before.experts) == "k1"
    assert "k2" not in repr(logged)


@pytest.mark.parametrize("spoil", [empty, Path.unlink], ids=["empty", "gone"])
async def test_an_edit_while_a_key_file_is_empty_loses_no_key(
    gateway: Gateway, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    key = tmp_path / "key"
    key.write_text("k1")
    gateway.file.write_text(gateway.file.read_text().replace("model: m", f"model: m, api_key_file: {key}"))
    hot = gateway.begin()
    spoil(key)
    gateway.file.write_text(gateway.file.read_text().replace("name: a", "name: b"))
    look(hot)
    assert (in_force(hot), key_of(hot.published.current.experts)) == ((2, "b"), "k1")
    assert hot.state.startswith("note: "), "the key is still missed"
    key.write_text("k2")
    look(hot)
    assert (key_of(hot.published.current.experts), hot.state) == ("k2", "ok")


async def test_a_half_written_key_is_not_taken(gateway: Gateway, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("whole-1")
    gateway.file.write_text(gateway.file.read_text().replace("model: m", f"model: m, api_key_file: {key}"))
    hot = gateway.begin()
    key.write_text("who")
    hot.look()
    gateway.file.write_text(gateway.file.read_text().replace("name: a", "name: b"))
    hot.look(everything=False)
    hot.look(everything=False)
    assert (in_force(hot), key_of(hot.published.current.experts)) == ((2, "b"), "whole-1")
    key.write_text("whole-2")
    hot.look()
    assert key_of(hot.published.current.experts) == "whole-1"
    hot.look()
    assert key_of(hot.published.current.experts) == "whole-2"


async def test_an_empty_key_file_holds_back_no_other_experts_new_key(gateway: Gateway, tmp_path: Path) -> None:
    lost, key = tmp_path / "lost", tmp_path / "key"
    lost.write_text("k1")
    key.write_text("k1")
    text = gateway.file.read_text().replace("model: m}", f"model: m, api_key_file: {key}}}")
    other = f'    other: {{base_url: "http://127.0.0.1:1/v1", model: m, api_key_file: {lost}}}\n'
    gateway.file.write_text(text.replace("  default:", f"{other}  default:"))
    hot = gateway.begin()
    lost.write_text("")
    key.write_text("k2")
    look(hot)
    pool = hot.published.current.experts
    assert (key_of(pool), key_of(pool, "other")) == ("k2", "k1")
    assert hot.state.startswith("note: ")


def key_of(pool: Pool, name: str = "fast") -> object:
    """The key that the expert sends."""
    return pool.tables[name].seats[0].deployment.expert._endpoint.api_key  # type: ignore[attr-defined]


async def test_a_database_out_of_reach_is_noted_and_the_change_is_taken_later(gateway: Gateway) -> None:
    hot = gateway.begin()
    with gateway.database.write() as connection:
        connection.execute(text("ALTER TABLE policy_versions RENAME TO away"))
    gateway.write("b")
    with structlog.testing.capture_logs() as logged:
        look(hot)
        look(hot)
    assert in_force(hot) == (1, "a")
    assert hot.state == "note: a change was not taken (table, file); the log says why"
    assert [line["source"] for line in logged if line["event"] == "policy.look_failed"] == ["table", "file"]
    with gateway.database.write() as connection:
        connection.execute(text("ALTER TABLE away RENAME TO policy_versions"))
    hot.look()
    assert (in_force(hot), hot.state) == ((2, "b"), "ok")


async def test_a_table_that_was_emptied_changes_nothing(gateway: Gateway) -> None:
    hot = gateway.begin()
    with gateway.database.write() as connection:
        connection.execute(text("DELETE FROM policy_versions"))
    look(hot)
    assert (in_force(hot), hot.state) == ((1, "a"), "ok")
    gateway.write("b")
    look(hot)
    assert in_force(hot) == (1, "b"), "numbers begin again, versions are told apart all the same"
    with gateway.database.write() as connection:
        connection.execute(text("DELETE FROM policy_versions"))
    gateway.store.add(_document(gateway.file.read_text(), gateway.folder), origin="publish", source="x", author=None)
    look(hot)
    assert in_force(hot) == (1, "b")


async def test_a_version_in_force_that_cannot_be_read_at_start_says_what_to_do(gateway: Gateway) -> None:
    gateway.begin()
    other = _document(gateway.file.read_text().replace("name: a", "name: z"), gateway.folder)
    gateway.store.add(other, origin="rollback", source="x", author=None)
    with gateway.database.write() as connection:
        connection.execute(text("UPDATE policy_versions SET document = '{}' WHERE number = 2"))
    gateway.registry = CollectorRegistry()
    with pytest.raises(StateError, match=r"version 2 .* somebody changed the table; .*conclave policy rollback"):
        gateway.begin()


async def test_a_version_that_asks_where_no_expert_may_be_is_not_taken(gateway: Gateway) -> None:
    """The file is checked when it is read; a version in the table may be older than what is allowed now."""
    hot = gateway.begin()
    said = PolicyDocument.model_validate({"experts": {"a": {"base_url": "http://169.254.169.254/v1", "model": "m"}}})
    gateway.store.add(complete(said, {}), origin="rollback", source="version 0", author=None)
    with structlog.testing.capture_logs() as logged:
        hot.look()
    ((source, reason),) = rejections(logged)
    assert source == "table"
    assert reason.startswith("version 2 of the policy: cannot be used: policy.experts.a.base_url: ")
    gateway.registry = CollectorRegistry()
    with pytest.raises(StateError, match=r"version 2 of the policy, .* policy\.experts\.a\.base_url"):
        gateway.begin()


async def test_each_version_has_a_row_from_when_it_takes_effect(gateway: Gateway) -> None:
    hot = gateway.begin()
    async with hot.following(gateway.append, every_s=0.02):
        gateway.write("b")
        await until(lambda: in_force(hot) == (2, "b"))
        first = gateway.store.get(1)
        assert first is not None
        await asyncio.to_thread(
            lambda: gateway.store.add(first.read(), origin="rollback", source="version 1", author="ann")
        )
        await until(lambda: in_force(hot) == (3, "a"))
    told = [(row["kind"], row["number"], row["origin"], row["source"], row["author"]) for row in gateway.rows]
    assert told == [
        ("policy", 1, "file", str(gateway.file), None),
        ("policy", 2, "file", str(gateway.file), None),
        ("policy", 3, "rollback", "version 1", "ann"),
    ]
    assert gateway.rows[0]["digest"] == gateway.rows[2]["digest"] == hot.published.current.digest


async def test_a_full_journal_does_not_hold_a_version_back(gateway: Gateway) -> None:
    def full(_: Mapping[str, Any]) -> int:
        raise Unavailable("the audit record cannot be written")

    hot = gateway.begin()
    async with hot.following(full, every_s=0.02):
        gateway.write("b")
        await until(lambda: in_force(hot) == (2, "b"))


class SilentStore(PolicyStore):
    """The versions in a database that was stopped after the start: it refuses nothing and answers nothing."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.asked, self.told = threading.Event(), threading.Event()
        self.waits: threading.Thread | None = None

    def newest_but(self, known: StoredVersion) -> StoredVersion | None:
        self.waits = threading.current_thread()
        self.asked.set()
        self.told.wait()
        return super().newest_but(known)


async def test_a_database_that_does_not_answer_holds_up_no_end(gateway: Gateway) -> None:
    store = SilentStore(gateway.database)
    makings = Makings(store, gateway.opener, PolicyMeter(gateway.registry), lambda _: classification(), "m" * 64)
    hot = HotPolicy(load_settings(gateway.file), makings)
    try:
        async with asyncio.timeout(10), hot.following(gateway.append, every_s=0.02):
            await until(store.asked.is_set)
        assert store.waits is not None
        assert store.waits.daemon, "the end of the program would wait for it"
    finally:
        store.told.set()


async def test_no_look_outlives_the_block(gateway: Gateway) -> None:
    hot = gateway.begin()
    async with hot.following(gateway.append, every_s=0.02):
        pass
    gateway.write("b")
    await asyncio.sleep(0.1)
    assert in_force(hot) == (1, "a")
    assert [task for task in asyncio.all_tasks() if task.get_name() == "policy"] == []


async def until(probe: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not probe():  # noqa: ASYNC110  what is waited for happens on a thread
            await asyncio.sleep(0.01)
