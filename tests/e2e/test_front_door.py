"""The door in the real world, with real processes: draining, overload, proxies, pages, tags and key rotation."""

import asyncio
import json
import signal
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from processes import Gateway, Process, ask, config, launch, until

STREAMS = 50


def ready(gateway: Gateway) -> int:
    url = f"http://127.0.0.1:{gateway.admin_port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def metric(gateway: Gateway, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin_port}/metrics", timeout=10) as response:
        text = response.read().decode()
    return float(next(line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def rows_of_kind(gateway: Gateway, kind: str) -> list[dict[str, Any]]:
    files = [file for file in (gateway.folder / ".conclave" / "journal").glob("*.jsonl") if file.name != "heads.jsonl"]
    rows = [json.loads(line)["row"] for file in files for line in file.read_bytes().splitlines()]
    return [row for row in rows if row["kind"] == kind]


async def begun(gateway: Gateway, model: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream whose first event has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=1024 * 1024)
    body = json.dumps(ask(model, stream=True)).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n"
    writer.write(head % len(body) + body)
    await reader.readuntil(b"data: ")
    return reader, writer


def terminate(gateway: Gateway) -> None:
    assert gateway.running is not None
    gateway.running.send_signal(signal.SIGTERM)


async def test_fifty_streams_that_run_at_sigterm_are_all_whole(upstream: Process, tmp_path: Path) -> None:
    gateway = launch(tmp_path, {**config(upstream.port), "server": {"drain_delay_s": 0.2}})
    async with asyncio.timeout(60):
        streams = await asyncio.gather(*(begun(gateway, "paced") for _ in range(STREAMS)))
        terminate(gateway)
        await asyncio.to_thread(until, lambda: ready(gateway) == 503, "readiness fails")
        answers = await asyncio.gather(*(reader.read() for reader, _ in streams))
    assert await asyncio.to_thread(gateway.stop) == 0
    assert sum(b"data: [DONE]" in answer for answer in answers) == STREAMS
    assert not any(b'"error"' in answer for answer in answers)
    assert [row["ending"] for row in gateway.rows()] == ["answered"] * STREAMS
    for _, writer in streams:
        writer.close()


async def test_what_outlasts_the_grace_time_gets_an_error_event_and_a_row(upstream: Process, tmp_path: Path) -> None:
    settings = config(upstream.port)
    settings["policy"]["experts"]["stall"]["idle_s"] = 60
    gateway = launch(tmp_path, {**settings, "server": {"grace_s": 1}})
    async with asyncio.timeout(30):
        streams = await asyncio.gather(*(begun(gateway, "stall") for _ in range(3)))
        terminate(gateway)
        answers = await asyncio.gather(*(reader.read() for reader, _ in streams))
    assert await asyncio.to_thread(gateway.stop) == 0
    for answer in answers:
        last = answer.split(b"data: ")[-1].split(b"\n\n")[0]
        assert json.loads(last)["error"]["code"] == "unavailable"
        assert b"[DONE]" not in answer
    assert [(row["ending"], row["status"]) for row in gateway.rows()] == [("stopped", 200)] * 3
    assert gateway.cli("audit", "verify").returncode == 0
    for _, writer in streams:
        writer.close()


async def test_a_gateway_with_no_room_says_when_to_come_back_and_stays_healthy(
    upstream: Process, tmp_path: Path
) -> None:
    gateway = launch(tmp_path, {**config(upstream.port), "server": {"max_calls": 2, "max_queue": 1}})
    async with asyncio.timeout(60):
        streams = await asyncio.gather(*(begun(gateway, "paced") for _ in range(2)))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(gateway.post, ask("echo"))
            await asyncio.to_thread(until, lambda: metric(gateway, "conclave_calls_queued") == 1, "one stands in line")
            status, headers, answer = await asyncio.to_thread(gateway.post, ask("echo"))
            assert (status, json.loads(answer)["error"]["code"]) == (429, "overloaded")
            assert headers["x-should-retry"] == "true"
            assert float(headers["retry-after-ms"]) > 0
            assert await asyncio.to_thread(ready, gateway) == 200
            assert await asyncio.to_thread(metric, gateway, "conclave_calls_in_work") == 2
            assert await asyncio.to_thread(metric, gateway, "conclave_calls_overloaded_total") == 1
            for reader, writer in streams:
                await reader.readuntil(b"[DONE]")
                writer.close()
            assert (await asyncio.to_thread(waiting.result))[0] == 200
    until(lambda: rows_of_kind(gateway, "turned_away"), "who was turned away is counted in the record")
    assert gateway.stop() == 0
    assert [(row["tenant"], row["count"]) for row in rows_of_kind(gateway, "turned_away")] == [("anonymous", 1)]
    assert gateway.cli("audit", "verify").returncode == 0


def test_a_client_that_comes_back_when_it_was_told_is_served(upstream: Process, tmp_path: Path) -> None:
    gateway = launch(tmp_path, {**config(upstream.port), "server": {"max_calls": 1, "max_queue": 0}})
    with gateway.open(ask("paced", stream=True)) as stream:
        stream.read(10)
        status, headers, _ = gateway.post(ask("echo"))
        assert status == 429
        stream.read()
    time.sleep(min(float(headers["retry-after-ms"]) / 1000, 0.2))
    assert gateway.post(ask("echo"))[0] == 200
    assert gateway.stop() == 0


@pytest.fixture(scope="module")
def guarded(upstream: Process, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A gateway behind a proxy of this machine's, with a page that may use it, and tags that are counted."""
    settings = config(upstream.port, tags={"team": ["search"]})
    settings["server"] = {
        "cors": {"origins": ["https://app.example"]},
        "trusted_proxies": ["127.0.0.1"],
        "keys_refresh_s": 0.1,
    }
    gateway = launch(tmp_path_factory.mktemp("guarded"), settings)
    yield gateway
    gateway.stop()


def test_a_listed_page_reads_streams_and_errors(guarded: Gateway) -> None:
    for body, wanted in ((ask("echo", stream=True), 200), (ask("nobody"), 404)):
        status, headers, _ = guarded.post(body, origin="https://app.example")
        assert (status, headers["access-control-allow-origin"]) == (wanted, "https://app.example")


def test_a_stranger_behind_the_proxy_needs_a_key_and_this_machines_own_programs_do_not(guarded: Gateway) -> None:
    status, _, answer = guarded.post(ask("echo"), **{"x-forwarded-for": "203.0.113.7"})
    assert (status, json.loads(answer)["error"]["code"]) == (401, "missing_api_key")
    assert guarded.post(ask("echo"), **{"x-forwarded-for": "127.0.0.1"})[0] == 200
    forged = {"x-forwarded-for": "127.0.0.1, 203.0.113.7", "forwarded": "for=127.0.0.1"}
    assert guarded.post(ask("echo"), **forged)[0] == 401


def test_tags_stand_in_the_row_and_in_the_metrics_and_reach_no_expert(guarded: Gateway) -> None:
    tags = {"x-conclave-tags": "team=search, env=prod"}
    status, headers, _ = guarded.post(ask("echo", conclave={"tags": {"job": "7"}}), **tags)
    assert status == 200
    row = guarded.row(headers["x-request-id"])
    assert row["tags"] == {"team": "search", "env": "prod", "job": "7"}
    assert guarded.post(ask("echo"), **{"x-conclave-tags": "Team"})[0] == 400
    counted = (
        'conclave_tagged_requests_total{conclave_ending="answered",conclave_tag="team",conclave_tag_value="search"}'
    )
    until(lambda: counted in scraped(guarded), "the tag is counted")
    assert 'conclave_tag="env"' not in scraped(guarded)
    export = guarded.cli("audit", "export", "--jsonl", "-")
    assert '"tags":{"env":"prod","job":"7","team":"search"}' in export.stdout, export.stderr


def scraped(gateway: Gateway) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin_port}/metrics", timeout=10) as response:
        return str(response.read().decode())


def test_a_running_gateway_takes_both_keys_for_the_overlap_and_the_record_says_who_followed_whom(
    guarded: Gateway,
) -> None:
    """The last test of its gateway: from the first key on, keys are needed."""
    made = guarded.cli("keys", "create", "--name", "app", "--tenant", "acme")
    old = made.stdout.strip()
    until(lambda: served(guarded, old) == 200, "the key is known", limit_s=10)
    rotated = guarded.cli("keys", "rotate", old.split("_")[1], "--overlap", "1h")
    new = rotated.stdout.strip()
    assert new.startswith("cv_"), rotated.stderr
    until(lambda: served(guarded, new) == 200, "its successor is known", limit_s=10)
    assert served(guarded, old) == 200
    assert guarded.cli("keys", "revoke", old).returncode == 0
    until(lambda: served(guarded, old) == 401, "the old one is refused", limit_s=10)
    assert served(guarded, new) == 200
    actions = [(row["action"], row["key_id"], row.get("new_key_id")) for row in rows_of_kind(guarded, "key")]
    first, second = old.split("_")[1], new.split("_")[1]
    assert sorted(actions) == [("created", first, None), ("revoked", first, None), ("rotated", first, second)]
    verified = guarded.cli("audit", "verify")
    assert verified.returncode == 0, verified.stdout


def served(gateway: Gateway, key: str) -> int:
    return gateway.post(ask("echo"), authorization=f"Bearer {key}")[0]
