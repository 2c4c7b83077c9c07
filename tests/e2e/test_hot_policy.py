"""A policy that changes while it is used: real gateways under load, files that are replaced, commands beside them."""

import asyncio
import json
import re
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from processes import Gateway, Process, ask, config, launch, until

VERSIONS = 20
REQUESTS = 2_000
AT_ONCE = 16
QUICK = {"policy_refresh_s": 0.1}


def settings(upstream: Process, **policy: Any) -> dict[str, Any]:
    return config(upstream.port, **policy) | {"server": QUICK}


@pytest.fixture
def gateway(upstream: Process, tmp_path: Path) -> Iterator[Gateway]:
    process = launch(tmp_path, settings(upstream, name="first"))
    yield process
    process.stop()


def write(gateway: Gateway, said: dict[str, Any]) -> None:
    """As an editor saves it: another file under the same name."""
    other = gateway.folder / ".conclave.yaml.new"
    other.write_text(json.dumps(said))
    other.replace(gateway.folder / "conclave.yaml")


def metrics(gateway: Gateway) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin_port}/metrics", timeout=10) as answer:
        return str(answer.read(), "utf-8")


def in_force(gateway: Gateway) -> tuple[int, str]:
    """The number of the version in force, and its digest's beginning."""
    found = re.search(r'^conclave_policy_version\{conclave_policy_digest="(\w+)"\} (\d+)\.0$', metrics(gateway), re.M)
    assert found, "the metric is there"
    return int(found[2]), found[1]


def takes(gateway: Gateway, number: int) -> str:
    """Wait for the version to be in force; its digest's beginning."""
    until(lambda: in_force(gateway)[0] == number, f"version {number} is in force")
    return in_force(gateway)[1]


def ready(gateway: Gateway) -> dict[str, str]:
    with urllib.request.urlopen(f"{gateway.url}/readyz", timeout=10) as answer:
        checks: dict[str, str] = json.load(answer)["checks"]
    return checks


def policy_rows(gateway: Gateway) -> list[dict[str, Any]]:
    files = (file for file in (gateway.folder / ".conclave" / "journal").glob("*.jsonl") if file.name != "heads.jsonl")
    rows = [json.loads(line)["row"] for file in files for line in file.read_bytes().splitlines() if line.endswith(b"}")]
    return [row for row in rows if row["kind"] == "policy"]


def log_lines(gateway: Gateway, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in gateway.output().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


class Load:
    """Clients that ask until they are told to stop: plain answers, short streams, and streams that span a swap."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/v1/chat/completions"
        self.wrong: list[str] = []
        self.policies: Counter[str] = Counter()
        self.done = 0
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> "Load":
        self._thread.start()
        return self

    def stop(self) -> None:
        self.stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(self._ask(session, client) for client in range(AT_ONCE)))

    async def _ask(self, session: aiohttp.ClientSession, client: int) -> None:
        turn = 0
        while not self.stopping.is_set():
            turn += 1
            stream = client < 2 or turn % 4 == 0
            model = "paced" if client < 2 else "auto"
            try:
                async with session.post(self.url, json=ask(model, stream=stream)) as answer:
                    body = await answer.read()
                    self._check(answer.status, body, stream=stream)
            except (aiohttp.ClientError, OSError) as error:
                self.wrong.append(f"{type(error).__name__}: {error}")

    def _check(self, status: int, body: bytes, *, stream: bool) -> None:
        whole = body.endswith(b"data: [DONE]\n\n") if stream else body.endswith(b"}")
        found = re.search(rb'"policy":"(\w{12})"', body)
        if status != 200 or not whole or found is None or b'"error"' in body:
            self.wrong.append(f"{status}: {body[-200:]!r}")
            return
        self.done += 1
        self.policies[str(found[1], "ascii")] += 1


def test_twenty_versions_under_load_drop_no_request(gateway: Gateway, upstream: Process) -> None:
    """Files and rollbacks in turn; each version replaces the expert that most of the calls are asking."""
    digests = [takes(gateway, 1)]
    load = Load(gateway.url).start()
    for number in range(2, VERSIONS + 2):
        if number % 5 == 0:
            done = gateway.cli("policy", "rollback", str(number - 2))
            assert done.returncode == 0, done.stderr
        else:
            said = settings(upstream, name=f"v{number}")
            said["policy"]["experts"]["echo"]["plain_s"] = 5 + number
            write(gateway, said)
        digests.append(takes(gateway, number))
    until(lambda: load.done >= REQUESTS or load.wrong, f"{REQUESTS} requests are answered", limit_s=120)
    load.stop()
    took_ms = sorted(line["took_ms"] for line in log_lines(gateway, "policy.in_force") if line["took_ms"] is not None)
    median, worst = took_ms[len(took_ms) // 2], took_ms[-1]
    sys.stderr.write(f"\n{load.done} requests, {len(load.wrong)} dropped; {len(took_ms)} versions taken under load, ")
    sys.stderr.write(f"from reading the change until in force: median {median} ms, worst {worst} ms\n")
    assert load.wrong == []
    assert load.done >= REQUESTS
    assert set(load.policies) <= set(digests)
    assert len(load.policies) > VERSIONS / 2, "calls were served by many of them"
    assert [row["number"] for row in policy_rows(gateway)] == list(range(1, VERSIONS + 2))
    by_digest = {row["digest"] for row in policy_rows(gateway)}
    assert {row["policy"] for row in gateway.rows()} <= by_digest
    assert gateway.cli("audit", "verify").returncode == 0


def test_a_stream_that_began_under_an_old_version_ends_as_it_began(gateway: Gateway, upstream: Process) -> None:
    """Its expert is gone from the new version, and closed only when the stream has ended."""
    before = takes(gateway, 1)
    with gateway.open(ask("paced", stream=True)) as stream:
        first = stream.read(600)
        said = settings(upstream, name="without")
        del said["policy"]["experts"]["paced"]
        write(gateway, said)
        takes(gateway, 2)
        status, _, refused = gateway.post(ask("paced"))
        assert (status, json.loads(refused)["error"]["code"]) == (404, "model_not_found")
        rest = stream.read()
    whole = first + rest
    assert whole.count(b'"content": " w"') == 100
    assert whole.endswith(b"data: [DONE]\n\n")
    assert f'"policy":"{before}"'.encode() in whole


def test_a_wrong_file_is_told_with_its_line_and_changes_nothing(gateway: Gateway, upstream: Process) -> None:
    before = takes(gateway, 1)
    file = gateway.folder / "conclave.yaml"
    file.write_text('policy:\n  experts: {a: {base_url: "http://127.0.0.1:1/v1", model: m}}\n  default: [b]\n')
    until(lambda: log_lines(gateway, "policy.rejected"), "the rejection is logged")
    assert [line["reason"] for line in log_lines(gateway, "policy.rejected")] == [
        "conclave.yaml:3: policy.default[0]: unknown expert 'b'; known: a, encoder, quoting"
    ]
    assert ready(gateway)["policy"] == "note: a change was not taken (file); the log says why"
    assert 'conclave_policy_rejections_total{conclave_policy_source="file"} 1.0' in metrics(gateway)
    assert (in_force(gateway), gateway.post(ask("auto"))[0]) == ((1, before), 200)
    write(gateway, settings(upstream, name="second"))
    takes(gateway, 2)
    assert ready(gateway)["policy"] == "ok"


def test_a_rollback_by_command_is_served_at_once_and_after_a_restart(gateway: Gateway, upstream: Process) -> None:
    first = takes(gateway, 1)
    write(gateway, settings(upstream, name="second", aliases={"other": "echo"}))
    takes(gateway, 2)
    assert gateway.post(ask("other"))[0] == 200
    done = gateway.cli("policy", "rollback", "1", "--author", "ann")
    assert done.returncode == 0, done.stderr
    assert takes(gateway, 3) == first
    assert gateway.post(ask("other"))[0] == 404
    listed = gateway.cli("policy", "list").stdout.splitlines()
    assert (listed[-1].split()[0], listed[-1].split()[2], listed[-1].endswith("in force")) == ("3", "rollback", True)
    assert gateway.cli("policy", "diff", "2", "3").stdout == '- aliases.other: "echo"\n~ name: "second" -> "first"\n'
    gateway.stop()
    gateway.start()
    assert in_force(gateway) == (3, first), "the file still says what it said before the rollback"
    assert policy_rows(gateway)[-1]["author"] == "ann"


def test_replicas_of_one_database_follow_whoever_changed_last(
    gateway: Gateway, upstream: Process, tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = f"sqlite:///{gateway.folder / '.conclave' / 'conclave.db'}"
    folder = tmp_path_factory.mktemp("other")
    other = launch(folder, settings(upstream, name="first"), CONCLAVE__SERVER__DATABASE_URL=url)
    try:
        assert in_force(other) == in_force(gateway), "the same file makes no second version"
        for number, writer in ((2, gateway), (3, other), (4, gateway)):
            write(writer, settings(upstream, name=f"v{number}"))
            assert takes(gateway, number) == takes(other, number)
        assert other.cli("policy", "rollback", "2").returncode == 0
        assert takes(gateway, 5) == takes(other, 5)
        for replica in (gateway, other):  # a shared file, noticed by both
            write(replica, settings(upstream, name="shared"))
        assert takes(gateway, 6) == takes(other, 6)
    finally:
        other.stop()


def test_a_rotated_key_file_is_sent_without_a_restart(upstream: Process, tmp_path: Path) -> None:
    said = settings(upstream)
    key = tmp_path / "key"
    key.write_text("k1")
    said["policy"]["experts"]["echo"]["api_key_file"] = str(key)
    gateway = launch(tmp_path, said)
    try:
        assert gateway.post(ask("auto"))[0] == 200
        key.write_text("k2")
        until(lambda: log_lines(gateway, "policy.keys_read"), "the key is read again")
        assert gateway.post(ask("auto"))[0] == 200
        assert in_force(gateway)[0] == 1
        assert "k2" not in gateway.output()
    finally:
        gateway.stop()
