"""`conclave router replay|shadow|split|outcomes|explain`: what a person and a program see, on a record made by hand."""

import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import delete

from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.asked import Asked
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.life_cli import router
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.recorded import as_row
from conclave.gateway.policy.store import PolicyStore
from conclave.gateway.state.sql import Database, keep_new, replace
from conclave.gateway.state.tables import audit_rows, feedback, policy_versions, shadow_choices
from conclave.router.api import Classification

URL = "http://127.0.0.1:1/v1"
POLICY: dict[str, Any] = {
    "experts": {
        "large": {"base_url": URL, "model": "m", "price": {"input": 2, "output": 8}},
        "small": {"base_url": URL, "model": "n", "price": {"input": 1, "output": 1}},
    },
    "categories": {"code": ["large", "small"]},
    "default": ["large"],
    "routing": {"split": {"name": "thrifty", "share": 0.5, "categories": {"code": ["small"]}}},
}
FOUND = Classification("code", 0.9, unsure=False, probabilities={"code": 0.9, "law": 0.1})
ASKED = Asked("auto", "chat", frozenset(), None, FOUND)


def version(**parts: Any) -> Version:
    document = complete(PolicyDocument.model_validate(POLICY | parts), {})
    return Version(document, Pool({}), classify=lambda _: FOUND, model_digest="m")


class Life:
    """A state folder with a record."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = Database.of(None, folder / "state").open()
        self.versions = PolicyStore(self.database)
        self.policy = version()
        self.versions.add(self.policy.document, origin="file", source="f", author=None)
        self._seq = 0

    def call(
        self, number: int, *, arm: str | None = None, said: float | None = None, conversation: str = "", **more: Any
    ) -> dict[str, Any]:
        """Keep a call's row, and what was said of it."""
        rules = self.policy.rules_for("t")
        assert rules.arms is not None
        chosen = rules.arms.named(arm) if arm is not None else None
        decision = as_row((chosen or rules).choose(ASKED), ASKED, arm, (chosen or rules).basis)
        row: dict[str, Any] = {
            "kind": "call",
            "time": f"2026-11-22T07:30:{number % 60:02}.000000Z",
            "request_id": f"req_{number:024x}",
            "tenant": "t",
            "model": "auto",
            "operation": "chat",
            "ending": "answered",
            "policy": self.policy.digest,
            "decision": decision | ({"conversation": conversation or str(number)} if arm else {}),
            "attempts": [
                {
                    "expert": decision["steps"][0]["expert"],
                    "started_ms": 1.0,
                    "failure": None,
                    "usage": {"prompt_tokens": 1000, "completion_tokens": 1000},
                }
            ],
            "duration_ms": 10.0 + number % 7,
            **more,
        }
        self._seq += 1
        kept = {"chain": "c", "seq": self._seq, "hash": "h", "arm": arm, "row": msgspec.json.encode(row).decode()}
        with self.database.write() as connection:
            keep_new(
                connection, audit_rows, [{**kept, **{k: row[k] for k in ("time", "kind", "request_id", "tenant")}}]
            )
            if said is not None:
                word = {"request_id": row["request_id"], "tenant": "t", "time": row["time"], "score": said}
                replace(connection, feedback, {**word, "chain": "c", "seq": self._seq})
        return row

    def run(self, *arguments: str) -> Result:
        where = ["--config", "/dev/null", "--state-dir", str(self.folder / "state")]
        return CliRunner().invoke(router, [arguments[0], *where, *arguments[1:]])


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    made = Life(tmp_path)
    yield made
    made.database.close()


SINCE = ("--since", "2026-01-01")


def test_a_replay_says_same_or_what_differs(life: Life) -> None:
    row = life.call(1)
    assert (found := life.run("replay", row["request_id"])).exit_code == 0
    assert found.stdout == "same\n"
    row["decision"]["steps"].reverse()
    changed = life.call(2, decision=row["decision"])
    found = life.run("replay", changed["request_id"])
    assert (found.exit_code, found.stdout.splitlines()[0]) == (1, "differs")
    assert found.stdout.splitlines()[1].startswith('  steps: recorded [{"expert":"small"')
    told = json.loads(life.run("replay", changed["request_id"], "--json").stdout)
    assert (told["ending"], told["changes"][0]["path"]) == ("differs", "steps")


def test_many_replays_are_counted_and_the_status_says_if_one_differs(life: Life) -> None:
    for number in range(3):
        life.call(number)
    assert (found := life.run("replay", "--all", *SINCE)).exit_code == 0
    assert found.stdout == "3 the same, 0 different\n"
    row = life.call(3)
    life.call(4, decision=row["decision"] | {"row": "default"})
    life.call(5, policy="f" * 64)
    life.call(6, decision=None)
    found = life.run("replay", "--all", *SINCE)
    assert found.exit_code == 1
    assert found.stdout.splitlines() == [
        f"req_{4:024x}: row",
        "4 the same, 1 different, 1 cannot be replayed",
    ]
    assert json.loads(life.run("replay", "--all", "--json", *SINCE).stdout.splitlines()[-1]) == {
        "same": 4, "differs": 1, "unknown": 1,
    }  # fmt: skip
    assert life.run("replay", "--all", "--since", "2027-01-01").stdout == "0 the same, 0 different\n"


def test_a_version_that_somebody_changed_in_the_table_is_no_witness(life: Life) -> None:
    row = life.call(1)
    with life.database.write() as connection:
        connection.execute(policy_versions.update().values(document='{"experts":[]}'))
    found = life.run("replay", row["request_id"])
    assert found.exit_code == 0
    assert found.stdout.startswith("cannot be replayed: the table of versions has no policy")


def test_a_row_that_somebody_broke_in_the_table_is_named_and_nothing_is_a_traceback(life: Life) -> None:
    row = life.call(1)
    broken = {"row": 7, "steps": [{"expert": "large"}], "category": "code"}
    life.call(2, decision=broken)
    life.call(3, attempts="none")
    for number in (2, 3):
        found = life.run("replay", f"req_{number:024x}")
        assert (found.exit_code, found.stdout[:20]) == (0, "cannot be replayed: ")
        assert "not as Conclave writes it" in found.stdout
    with life.database.write() as connection:
        connection.execute(audit_rows.update().where(audit_rows.c.seq == 1).values(row="{"))
    found = life.run("replay", "--all", *SINCE)
    assert (found.exit_code, "row 1 of the chain c" in found.stderr) == (1, True)
    assert "there is no call" in life.run("replay", row["request_id"]).stderr


def test_what_this_conclave_prices_otherwise_is_no_difference_but_cannot_be_replayed(life: Life) -> None:
    """The policy leaves a price to the catalog, and an upgrade changes it: nobody has tampered with the row."""
    row = life.call(1)
    assert row["decision"]["basis"]
    moved = row["decision"] | {"basis": "0" * 16}
    assert life.run("replay", life.call(2, decision=moved)["request_id"]).stdout == "same\n"
    life.call(3, decision=moved | {"steps": row["decision"]["steps"][::-1]})
    found = life.run("replay", f"req_{3:024x}")
    assert (found.exit_code, found.stdout[:20]) == (0, "cannot be replayed: ")
    assert "this Conclave comes to others" in found.stdout


def test_a_row_that_the_table_lost_is_found_in_the_journal(life: Life) -> None:
    row = life.call(1)
    journal = life.folder / "state" / "journal"
    journal.mkdir()
    raw = msgspec.json.encode({**row, "seq": 0}, order="sorted")
    (journal / "20261122t072340z-9f2c4e1a.000000000000.jsonl").write_bytes(
        b'{"hash":"' + b"0" * 64 + b'","row":' + raw + b"}\n"
    )
    with life.database.write() as connection:
        connection.execute(delete(audit_rows))
    assert life.run("replay", row["request_id"]).stdout == "same\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["replay"], "give a REQUEST_ID"),
        (["replay", "req_1", "--all"], "give a REQUEST_ID"),
        (["replay", "req_1"], "there is no call req_1"),
        (["replay", ""], "a REQUEST_ID is"),
        (["replay", "req_\udcff"], "a REQUEST_ID is"),
        (["replay", "r" * 100_000], "a REQUEST_ID is"),
        (["replay", "req_1", "req_2"], "unexpected extra argument"),
        (["split", "--since", "999999w"], "before the year 1"),
        (["split", "--since", "0001-01-01T00:00+14:00"], "before the year 1"),
        (["replay", "--all", "--since", "yesterday"], "is no moment"),
        (["shadow", "--since", "0d"], "is no moment"),
        (["explain"], "either a TEXT"),
        (["explain", "x", "--jsonl", "y"], "either a TEXT"),
    ],
)
def test_wrong_usage_is_said_in_a_line(life: Life, arguments: list[str], words: str) -> None:
    found = life.run(*arguments) if arguments[0] != "explain" else CliRunner().invoke(router, arguments)
    assert found.exit_code == 2
    assert words in found.stderr


def test_where_there_is_no_record_none_is_made(tmp_path: Path) -> None:
    for command in (["replay", "req_1"], ["shadow"], ["split"], ["outcomes"]):
        state = tmp_path / "no" / "state"
        found = CliRunner().invoke(router, [*command, "--config", "/dev/null", "--state-dir", str(state)])
        assert (found.exit_code, "there is no record at sqlite:///" in found.stderr) == (1, True)
        assert not state.parent.exists()


def test_arms_are_compared_by_conversation(life: Life) -> None:
    """Ten calls of one conversation are one value: else one talkative user would decide the test."""
    number = 0
    for arm, score in (("control", 0.2), ("thrifty", 0.9)):
        for conversation in range(40):
            for turn in range(1 + 9 * (conversation == 0)):
                number += 1
                wobble = 0.05 * (conversation % 3 - 1)
                life.call(
                    number, arm=arm, conversation=f"{arm} {conversation}", said=score + wobble if turn < 2 else None
                )
    told = json.loads(life.run("split", "--json", *SINCE).stdout)
    assert {name: (arm["calls"], arm["conversations"]) for name, arm in told["arms"].items()} == {
        "control": (49, 40), "thrifty": (49, 40),
    }  # fmt: skip
    said = told["differences"]["feedback"]
    assert (said["values"], said["verdict"]) == (40, "more")
    assert said["low"] < 0.7 < said["high"]
    cost = told["differences"]["cost_usd"]
    assert (round(cost["mean"], 6), cost["verdict"]) == (-0.008, "less")
    shown = life.run("split", *SINCE).stdout
    assert "thrifty less control" in shown
    assert "cost: -8 [-8, -8] USD per 1,000 calls, less (40 values)" in shown


def test_a_test_that_was_changed_begins_anew(life: Life) -> None:
    for number in range(4):
        life.call(number, arm=("control", "thrifty")[number % 2])
    life.policy = version(routing={"split": {**POLICY["routing"]["split"], "share": 0.2}})
    life.versions.add(life.policy.document, origin="file", source="f", author=None)
    life.call(10, arm="thrifty")
    told = json.loads(life.run("split", "--json", *SINCE).stdout)
    assert (told["older_calls"], told["arms"]["thrifty"]["calls"], told["arms"]["control"]["calls"]) == (4, 1, 0)


def shadowed(life: Life, rows: list[Mapping[str, Any]], trial: str = "t1", start: int = 0) -> None:
    about = {"chain": "s", "shadow": "thrifty", "trial": trial, "category": "code", "expert": "large", "other": "small"}
    kept = [
        {
            **about,
            "seq": at,
            "time": f"2026-11-22T08:{at // 60:02}:{at % 60:02}Z",
            "request_id": f"req_{at:024x}",
            **row,
        }
        for at, row in enumerate(rows, start)
    ]
    with life.database.write() as connection:
        keep_new(connection, shadow_choices, kept)


def test_a_shadows_differences_are_paired_and_told_by_category(life: Life) -> None:
    rng = random.Random(3)
    rows: list[dict[str, Any]] = []
    for at in range(200):
        score = rng.random()
        gain, category = (0.05, "code") if at % 2 else (0.0, "law")
        other = {"score": score, "other_score": score + gain + rng.gauss(0, 0.01)}
        rows.append({"category": category, **other, "cost_usd": 0.01, "other_cost_usd": 0.004})
    rows.append({"other": None, "category": "law"})
    rows.append({"other": "large", "category": "law"})
    shadowed(life, [{"category": "law"}] * 3, trial="old")
    shadowed(life, rows, start=10)
    (told,) = json.loads(life.run("shadow", "--json", *SINCE).stdout)
    assert (told["older_calls"], told["all"]["calls"], told["all"]["same"], told["all"]["nobody"]) == (3, 202, 1, 1)
    assert told["categories"]["code"]["score"]["verdict"] == "more"
    assert told["categories"]["law"]["score"]["verdict"] == "cannot tell yet"
    low, high = told["categories"]["code"]["score"]["low"], told["categories"]["code"]["score"]["high"]
    assert low < 0.05 < high
    assert high - low < 0.01  # paired: the spread of the scores themselves (0.29) is not in it
    assert round(told["all"]["cost_usd"]["mean"], 6) == -0.006
    shown = life.run("shadow", *SINCE).stdout
    assert "thrifty: 202 calls, the same expert in 0.5%, nobody in 1" in shown
    assert "3 calls of earlier forms" in shown
    assert life.run("shadow", "unknown", *SINCE).stdout.startswith("No calls of a shadow yet")


def test_feedback_tells_where_the_answers_were_worse(life: Life) -> None:
    shadowed(life, [{"other": "small" if at % 2 else "large"} for at in range(100)])
    with life.database.write() as connection:
        for at in range(100):
            word = {
                "request_id": f"req_{at:024x}",
                "tenant": "t",
                "time": "2026-11-22T08:00:00Z",
                "chain": "c",
                "seq": at,
            }
            replace(connection, feedback, {**word, "score": 0.2 if at % 2 else 0.9})
    (told,) = json.loads(life.run("shadow", "--json", *SINCE).stdout)
    said = told["all"]["feedback"]
    assert (said["where_same"]["calls"], said["where_other"]["calls"]) == (50, 50)
    assert (round(said["difference"]["mean"], 6), said["difference"]["verdict"]) == (-0.7, "less")
    assert "feedback on 100 calls: 0.900 (50) where both agree, 0.200 (50)" in life.run("shadow", *SINCE).stdout


def test_nothing_yet_is_said_so(life: Life) -> None:
    assert life.run("split").stdout.startswith("No calls of an A/B test")
    assert life.run("shadow", "--json").stdout == "[]\n"
    nothing = life.run("outcomes")
    assert (nothing.stdout, "no rated calls there" in nothing.stderr) == ("", True)


def test_outcomes_name_the_expert_that_answered(life: Life) -> None:
    row = life.call(1, said=0.8)
    life.call(2)
    failed = [{**row["attempts"][0], "failure": "status"}, {**row["attempts"][0], "expert": "small"}]
    life.call(3, said=0.4, attempts=failed)
    rows = [json.loads(line) for line in life.run("outcomes", *SINCE).stdout.splitlines()]
    assert rows == [
        {"id": f"req_{1:024x}", "category": "code", "scores": {"large": 0.8}, "cost": {"large": 0.01}},
        {"id": f"req_{3:024x}", "category": "code", "scores": {"small": 0.4}, "cost": {"small": 0.002}},
    ]
    without = life.run("outcomes", "--with-text", *SINCE)
    assert (without.stdout, "2 of 2 left out" in without.stderr) == ("", True)


def test_outcomes_are_of_the_answer_that_was_shown(life: Life) -> None:
    """An unsure answer that was kept because the stronger expert failed is what the caller rated."""
    (first,) = life.call(1)["attempts"]
    failed = {**first, "expert": "small", "failure": "status"}
    life.call(2, said=0.3, attempts=[{**first, "trial": {"unsure": True}}, failed], kept="large")
    life.call(3, said=0.0, attempts=[failed])
    life.call(4, said=0.0, attempts=[])
    found = life.run("outcomes", *SINCE)
    assert [json.loads(line)["scores"] for line in found.stdout.splitlines()] == [{"large": 0.3}]
    assert found.stderr == "2 of 3 left out: no expert answered\n"


def test_the_outcome_of_an_unsure_answer_that_was_kept_is_that_of_the_expert_that_gave_it(life: Life) -> None:
    (first,) = life.call(1)["attempts"]
    attempts = [{**first, "expert": "small", "trial": {"unsure": True}}, {**first, "failure": "status"}]
    life.call(2, said=0.4, attempts=attempts, kept="small")
    (row,) = [json.loads(line) for line in life.run("outcomes", *SINCE).stdout.splitlines()]
    assert (row["scores"], row["cost"]) == ({"small": 0.4}, {"small": 0.002})


def test_a_replay_also_walks_the_attempts(life: Life) -> None:
    """The experts that were asked follow from the steps and from what became of each."""
    row = life.call(1)
    (first,) = row["attempts"]
    failed, second = {**first, "failure": "status"}, {**first, "expert": "small"}
    walks = {
        "fell back": ([failed, second], 0),
        "the last one resumed": ([failed, {**second, "failure": "cut"}, second], 0),
        "nobody was asked": ([], 0),
        "escalated": ([{**first, "trial": {"unsure": True}}, second], 0),
        "kept": ([{**first, "trial": {"unsure": True}}, {**second, "failure": "status"}], 0),
        "the strong one resumed": ([{**first, "trial": {"unsure": True}}, {**second, "failure": "cut"}, second], 0),
        "another first": ([second], 1),
        "another fallback": ([failed, {**first, "expert": "quoting"}], 1),
    }
    for number, (what, (attempts, status)) in enumerate(walks.items(), start=10):
        found = life.run("replay", life.call(number, attempts=attempts)["request_id"])
        assert found.exit_code == status, (what, found.stdout)
        assert (f"attempts[{len(attempts) - 1}]" in found.stdout) == bool(status)


def explain(tmp_path: Path, *arguments: str, stdin: str | None = None) -> Result:
    (tmp_path / "conclave.yaml").write_text(json.dumps({"policy": POLICY}))
    return CliRunner().invoke(router, ["explain", "--config", str(tmp_path / "conclave.yaml"), *arguments], input=stdin)


def test_an_explanation_gives_every_expert_its_place_or_what_keeps_it_out(tmp_path: Path) -> None:
    question = "Write a Python function that reverses a string."
    told = json.loads(explain(tmp_path, question, "--json").stdout)
    assert told["category"] == "code"
    assert [(one["expert"], one["place"], one["why"]) for one in told["experts"]] == [
        ("large", 0, "category"),
        ("small", 1, "fallback"),
        ("quoting", None, "not in the row code"),
        ("encoder", None, "cannot do: chat"),
    ]
    assert told["trials"] == {"arm thrifty": "small"}
    assert told["cues"]
    shown = explain(tmp_path, question).stdout
    assert "asked first: category" in shown
    assert "cannot do: chat" in shown
    assert "arm thrifty" in shown


def test_a_shadow_that_would_ask_nobody_is_no_error(tmp_path: Path) -> None:
    names = ("large", "small", "quoting", "encoder")
    shadow = {"nobody": {"categories": {"code": ["large"]}, "routing": {"bans": {name: ["math"] for name in names}}}}
    (tmp_path / "conclave.yaml").write_text(json.dumps({"policy": POLICY | {"routing": {"shadow": shadow}}}))
    config = str(tmp_path / "conclave.yaml")
    question = "Solve for x: 3x^2 + 5x - 2 = 0. Show that the roots are real."
    found = CliRunner().invoke(router, ["explain", "--config", config, question, "--json"])
    told = json.loads(found.stdout)
    assert (told["category"], told["trials"]) == ("math", {"shadow nobody": None})
    assert "would ask nobody" in CliRunner().invoke(router, ["explain", "--config", config, question]).stdout


def test_each_row_of_a_file_is_explained_and_bad_ones_are_named(tmp_path: Path) -> None:
    rows = ['{"prompt": "hi", "id": 7}', "", "{", '{"text": "no prompt"}', '{"prompt": ""}']
    found = explain(tmp_path, "--jsonl", "-", stdin="\n".join(rows))
    assert [json.loads(line)["id"] for line in found.stdout.splitlines()] == [7, 5]
    assert (found.exit_code, "line 3:" in found.stderr, "line 4: no 'prompt'" in found.stderr) == (1, True, True)


def test_a_question_that_nobody_can_be_asked_is_a_line(tmp_path: Path) -> None:
    found = explain(tmp_path, "hi", "--model", "gpt-9")
    assert (found.exit_code, "there is no model 'gpt-9'" in found.stderr) == (1, True)
