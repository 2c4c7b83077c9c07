"""A policy is tried before it counts: a real gateway with a shadow and an A/B test, rated calls, and the reports.

Every command runs as a process beside the gateway, on its state folder.
"""

import json
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Gateway, Process, ask, config, launch, until

ROUTING = {
    "split": {"name": "calm", "share": 0.5, "default": ["paced"]},
    "shadow": {"other": {"default": ["paced"]}, "alike": {}},
}
PRICES = {"echo": {"input": 1, "output": 2}, "paced": {"input": 3, "output": 4}}


@pytest.fixture(scope="module")
def gateway(upstream: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    settings = config(upstream.port, routing=ROUTING)
    for name, price in PRICES.items():
        settings["policy"]["experts"][name] |= {"price": {**price}, "plain_s": 10}
    process = launch(tmp_path_factory.mktemp("life"), settings)
    yield process
    process.stop()


def called(gateway: Gateway, text: str = "hello", **more: Any) -> dict[str, Any]:
    status, _, body = gateway.post(ask("auto", text, **more))
    assert status == 200, body
    return dict(json.loads(body)["conclave"])


def said(gateway: Gateway, key: str | None = None, **body: Any) -> tuple[int, dict[str, Any]]:
    """POST /v1/feedback."""
    about = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"{gateway.url}/v1/feedback", json.dumps(body).encode(), about)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def query(gateway: Gateway, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with sqlite3.connect(gateway.folder / ".conclave" / "conclave.db") as database:
        found = database.execute(statement, values).fetchall()
    database.close()
    return found


def test_a_call_is_rated_at_once_and_the_last_word_counts(gateway: Gateway) -> None:
    """No wait for the audit table: the process remembers its newest calls."""
    request_id = called(gateway)["request_id"]
    assert said(gateway, request_id=request_id, thumbs="up") == (
        200,
        {"object": "feedback", "request_id": request_id, "score": 1.0, "label": None},
    )
    for score in (0.25, 0.25, 0.5):
        assert said(gateway, request_id=request_id, score=score, label="too_long", comment="my words")[0] == 200
    kept = "select score, label from feedback where request_id = ?"
    until(lambda: query(gateway, kept, request_id) == [(0.5, "too_long")], "the last word is kept, once")
    assert gateway.cli("audit", "verify").returncode == 0
    whole = b"".join(file.read_bytes() for file in (gateway.folder / ".conclave" / "journal").glob("*.jsonl"))
    assert whole.count(b'"kind":"feedback"') == 4
    assert b"my words" not in whole


def test_a_decision_is_replayed_from_the_record_alone(gateway: Gateway) -> None:
    request_id = called(gateway, "Write a function that sorts a list of numbers in Python.")["request_id"]
    until(lambda: query(gateway, "select 1 from audit_rows where request_id = ?", request_id), "the row is followed")
    same = gateway.cli("router", "replay", request_id)
    assert (same.returncode, same.stdout) == (0, "same\n"), same.stderr
    many = gateway.cli("router", "replay", "--all", "--since", "1d", "--json")
    counts = json.loads(many.stdout)
    assert (many.returncode, counts["differs"], counts["unknown"]) == (0, 0, 0)
    assert counts["same"] >= 1
    row = json.loads(query(gateway, "select row from audit_rows where request_id = ?", request_id)[0][0])
    row["decision"]["steps"][0]["expert"] = "stall"
    with sqlite3.connect(gateway.folder / ".conclave" / "conclave.db") as database:
        database.execute("update audit_rows set row = ? where request_id = ?", (json.dumps(row), request_id))
    database.close()
    other = gateway.cli("router", "replay", request_id)
    assert (other.returncode, other.stdout.splitlines()[0]) == (1, "differs")
    assert "stall" in other.stdout
    assert gateway.cli("router", "replay", "--all").returncode == 1
    assert gateway.cli("router", "replay", "req_nobody").returncode == 2


def test_a_conversation_stays_in_its_arm_and_both_arms_are_reported(gateway: Gateway) -> None:
    arms = {}
    for number in range(12):
        name = {"conversation": f"chat {number}"}
        first = called(gateway, f"hello {number}", conclave=name)
        again = called(gateway, "and something else", conclave=name)
        assert first["arm"] == again["arm"]
        assert (first["expert"] == "paced") == (first["arm"] == "calm")
        arms[first["request_id"]] = first["arm"]
        assert said(gateway, request_id=first["request_id"], score=1 if first["arm"] == "calm" else 0)[0] == 200
    assert set(arms.values()) == {"control", "calm"}
    marks = ",".join("?" * len(arms))
    kept = f"select count(*) from feedback where request_id in ({marks})"  # noqa: S608  marks
    until(lambda: query(gateway, kept, *arms) == [(12,)], "all feedback is followed")
    until(lambda: query(gateway, "select count(*) from audit_rows where arm is not null")[0][0] >= 24, "all calls are")
    report = json.loads(gateway.cli("router", "split", "--json").stdout)
    calm, control = report["arms"]["calm"], report["arms"]["control"]
    assert calm["feedback"]["calls"] >= sum(arm == "calm" for arm in arms.values())  # other tests rate calls, too
    assert calm["feedback"]["mean"] > 0.8
    assert control["feedback"]["mean"] < 0.2
    assert calm["cost_usd"] > control["cost_usd"] > 0
    assert report["differences"]["feedback"]["mean"] > 0
    assert report["differences"]["feedback"]["verdict"] == "cannot tell yet"  # far too few conversations
    assert "calm less control" in gateway.cli("router", "split").stdout


def test_a_shadow_is_scored_on_the_calls_of_the_policy_itself(gateway: Gateway) -> None:
    controls = [
        one for one in (called(gateway, f"what is {number}?") for number in range(8)) if one["arm"] == "control"
    ]
    ids = [one["request_id"] for one in controls]
    marks = ",".join("?" * len(ids))
    scored = f"select shadow, expert, other, cost_usd, other_cost_usd from shadow_choices where request_id in ({marks})"  # noqa: S608  marks
    rows = until(lambda: len(found := query(gateway, scored, *ids)) == 2 * len(ids) and found, "the calls are scored")
    assert {row[:3] for row in rows} == {("alike", "echo", "echo"), ("other", "echo", "paced")}
    assert all(row[4] > row[3] for row in rows if row[0] == "other")
    alike, other = json.loads(gateway.cli("router", "shadow", "--json").stdout)
    assert (alike["shadow"], alike["all"]["same"]) == ("alike", alike["all"]["calls"])
    assert (other["shadow"], other["all"]["same"]) == ("other", 0)
    assert other["all"]["cost_usd"]["mean"] > 0
    shown = gateway.cli("router", "shadow", "other").stdout
    assert "cost: +" in shown
    assert "expected score: not known" in shown  # this policy has no scores


def test_rated_calls_are_exported_as_outcomes_without_text(gateway: Gateway) -> None:
    request_id = called(gateway)["request_id"]
    assert said(gateway, request_id=request_id, score=0.75)[0] == 200
    until(lambda: query(gateway, "select 1 from feedback where request_id = ?", request_id), "it is followed")
    until(lambda: query(gateway, "select 1 from audit_rows where request_id = ?", request_id), "so is the call")
    rows = [json.loads(line) for line in gateway.cli("router", "outcomes").stdout.splitlines()]
    (row,) = (row for row in rows if row["id"] == request_id)
    assert list(row["scores"].values()) == [0.75]
    assert "prompt" not in row
    asked = gateway.cli("router", "outcomes", "--with-text")
    assert (asked.stdout, "no text was kept" in asked.stderr) == ("", True)


def test_only_the_tenant_of_a_call_may_rate_it(upstream: Process, tmp_path: Path) -> None:
    gateway = launch(tmp_path, config(upstream.port, audit={"keep_text": True}))
    try:
        mine = gateway.cli("keys", "create", "--name", "a", "--tenant", "acme").stdout.strip()
        alike = gateway.cli("keys", "create", "--name", "b", "--tenant", "acme").stdout.strip()
        foreign = gateway.cli("keys", "create", "--name", "c", "--tenant", "other").stdout.strip()
        newest = {"authorization": f"Bearer {foreign}"}
        until(lambda: gateway.post(ask("auto"), **newest)[0] == 200, "the gateway has noticed the keys")
        status, _, body = gateway.post(ask("auto", "my question"), authorization=f"Bearer {mine}")
        request_id = json.loads(body)["conclave"]["request_id"]
        assert said(gateway, request_id=request_id, score=1)[0] == 401
        status, error = said(gateway, foreign, request_id=request_id, score=0)
        assert (status, error["error"]["code"], error["error"]["param"]) == (404, "request_not_found", "request_id")
        until(lambda: query(gateway, "select 1 from audit_rows where request_id = ?", request_id), "it is followed")
        assert said(gateway, foreign, request_id=request_id, score=0)[0] == 404
        assert said(gateway, alike, request_id=request_id, score=1, comment="splendid")[0] == 200
        until(lambda: query(gateway, "select tenant from feedback") == [("acme",)], "it is kept")
        journal = b"".join(file.read_bytes() for file in (tmp_path / ".conclave" / "journal").glob("*.jsonl"))
        assert b'"comment":"splendid"' in journal  # this policy keeps texts, in the journal
        assert query(gateway, "select count(*) from audit_rows where row like '%splendid%'") == [(0,)]
        (row,) = gateway.cli("router", "outcomes", "--with-text").stdout.splitlines()
        assert json.loads(row)["prompt"] == "my question"
    finally:
        gateway.stop()
