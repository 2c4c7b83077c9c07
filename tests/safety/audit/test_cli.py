"""`conclave audit`: what it prints, and its exit status: 0 in order, 1 changed, 2 usage."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from conclave.safety.audit.cli import KEEP_DAYS, TABLES, audit
from conclave.safety.audit.keys import SigningKey
from conclave.safety.audit.read import Follow
from conclave.safety.audit.witness import Witnessed


@pytest.fixture
def state(written: Any, tmp_path: Path) -> Any:
    """A copy of the written journal, with its key."""
    folder = written.copy(tmp_path / "state")
    keys = folder.path / "keys"
    keys.mkdir()
    (keys / "audit_ed25519").write_bytes((written.path / "keys" / "audit_ed25519").read_bytes())
    return folder


def run(state: Any, *arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(audit, ["--state-dir", str(state.path), *arguments], **options)


def break_it(state: Any) -> str:
    name = min(state.files())
    path = state.journal / name
    path.write_bytes(path.read_bytes().replace(b"req_1", b"req_9"))
    return name


def test_an_intact_journal_is_status_0(state: Any) -> None:
    result = run(state, "verify")
    assert result.exit_code == 0
    assert "intact: 13 rows in 2 chains" in result.output


def test_a_changed_row_is_status_1_and_located(state: Any) -> None:
    name = break_it(state)
    result = run(state, "verify")
    assert result.exit_code == 1
    assert f"FAULT  {name}: row 2: was edited" in result.output
    found = msgspec.json.decode(run(state, "verify", "--json").output)
    assert (found["intact"], found["faults"][0]["file"], found["faults"][0]["row"]) == (False, name, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "--table", "sqlite://"),
        ("prune",),
        ("prune", "--before", "2026-01-01", "--keep-days", "3"),
        ("export",),
    ],
    ids=["no tables here", "no moment", "two moments", "no output"],
)
def test_wrong_usage_is_status_2(state: Any, arguments: tuple[str, ...]) -> None:
    assert run(state, *arguments).exit_code == 2


def test_a_folder_without_a_journal_or_key_is_status_2(tmp_path: Path, written: Any) -> None:
    for folder in (tmp_path / "nowhere", written.copy(tmp_path / "keyless").path):
        result = CliRunner().invoke(audit, ["--state-dir", str(folder), "verify"])
        assert result.exit_code == 2


def test_the_printed_key_verifies_elsewhere(state: Any, tmp_path: Path) -> None:
    pinned = tmp_path / "audit.pem"
    pinned.write_text(run(state, "key").output)
    (state.path / "keys" / "audit_ed25519").unlink()
    assert run(state, "verify", "--public-key", str(pinned)).exit_code == 0
    pinned.write_text("no key")
    assert run(state, "verify", "--public-key", str(pinned)).exit_code == 2


def test_a_table_is_compared_when_the_command_line_can_open_one(state: Any) -> None:
    asked: list[str] = []

    def open_table(url: str) -> list[Witnessed]:
        asked.append(url)
        return [Witnessed("29990101t000000z-00000000", 0, "0" * 64)]

    with audit.make_context("audit", ["--state-dir", str(state.path), "verify", "--table", "sqlite:///x"]) as context:
        context.meta[TABLES] = open_table
        with pytest.raises(SystemExit) as ended:
            audit.invoke(context)
    assert (ended.value.code, asked) == (1, ["sqlite:///x"])


def test_tail_shows_the_newest_rows_of_all_chains(state: Any) -> None:
    lines = run(state, "tail", "-n", "6").output.splitlines()
    assert len(lines) == 6
    assert "closed" in lines[0]
    assert "genesis" in lines[1]
    assert all("req_" in line for line in lines[2:])
    rows = [msgspec.json.decode(line)["row"] for line in run(state, "tail", "-n", "100", "--json").output.splitlines()]
    assert len(rows) == 13
    assert rows == sorted(rows, key=lambda row: row["time"])


def test_what_a_row_holds_does_not_steer_the_terminal(state: Any, wall: Any) -> None:
    journal = state.open(wall)
    journal.append({"kind": "call", "time": "2026-03-09T00:00:00.000000Z", "code": "\x1b[2J\x9b2J", "status": 502})
    journal.close()
    output = run(state, "tail", "-n", "20").output
    assert "?[2J?2J" in output
    assert "\x1b" not in output


def test_tail_follows_rows_of_chains_old_and_new(state: Any, wall: Any, new_row: Any) -> None:
    slept: list[float] = []

    def write_meanwhile(seconds: float) -> None:
        slept.append(seconds)
        wall.now += timedelta(days=1)
        journal = state.open(wall)
        journal.append(new_row(wall, len(slept)))

    to_come = iter(Follow(state.journal, sleep=write_meanwhile))
    kinds = [next(to_come).data["kind"] for _ in range(4)]
    assert kinds == ["genesis", "call", "genesis", "call"]
    assert len(slept) == 2


def test_export_writes_the_rows_of_a_span_as_they_stand(state: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    result = run(state, "export", "--from", "2026-03-02", "--to", "2026-03-02T00:01:20", "--jsonl", str(out))
    assert result.exit_code == 0
    lines = out.read_bytes().splitlines()
    assert len(lines) == 5 + 2  # of the second day: 4 calls and the closing row; genesis and one call of the next chain
    stored = b"".join(state.files().values())
    assert all(line in stored for line in lines)


def test_a_changed_record_is_not_exported(state: Any, tmp_path: Path) -> None:
    break_it(state)
    result = run(state, "export", "--jsonl", str(tmp_path / "out.jsonl"))
    assert result.exit_code == 1
    assert not (tmp_path / "out.jsonl").exists() or (tmp_path / "out.jsonl").read_bytes() == b""


def test_prune_takes_the_policys_retention_where_it_is_known(state: Any) -> None:
    with audit.make_context("audit", ["--state-dir", str(state.path), "prune"]) as context:
        context.meta[KEEP_DAYS] = 1
        audit.invoke(context)
    assert sorted(state.files()) == ["heads.jsonl"]


def test_prune_says_what_went_and_verify_remembers(state: Any) -> None:
    result = run(state, "prune", "--before", "2026-03-02")
    assert result.exit_code == 0
    assert "3 rows dropped" in result.output
    assert "rows 0 to 2" in run(state, "verify").output
    assert run(state, "prune", "--keep-days", "0").exit_code == 0
    assert sorted(state.files()) == ["heads.jsonl"]


def test_what_is_left_of_pruned_rows_is_not_exported(state: Any, tmp_path: Path) -> None:
    first = min(state.files())
    content = state.files()[first]
    run(state, "prune", "--before", "2026-03-02")
    (state.journal / first).write_bytes(content)
    out = tmp_path / "out.jsonl"
    assert run(state, "export", "--jsonl", str(out)).exit_code == 0
    lines = out.read_bytes().splitlines()
    assert len(lines) == 10
    assert not set(lines) & set(content.splitlines())
    times = [msgspec.json.decode(line)["row"]["time"] for line in lines]
    assert times == sorted(times)


def test_after_a_key_loss_prune_trusts_the_old_key_that_it_is_given(state: Any, wall: Any, tmp_path: Path) -> None:
    pinned = tmp_path / "old.pem"
    pinned.write_text(run(state, "key").output)
    (state.path / "keys" / "audit_ed25519").unlink()
    state.key = SigningKey.open(state.path / "keys" / "audit_ed25519")
    wall.now += timedelta(days=2)
    state.open(wall).close()
    refused = run(state, "prune", "--before", "2026-03-02")
    assert (refused.exit_code, "not trusted" in refused.output) == (1, True)
    done = run(state, "prune", "--before", "2026-03-02", "--public-key", str(pinned))
    assert (done.exit_code, "3 rows dropped" in done.output) == (0, True)
    pinned.write_text(pinned.read_text() + run(state, "key").output)
    assert run(state, "verify", "--public-key", str(pinned)).exit_code == 0


def test_the_state_folder_may_come_from_the_environment(state: Any) -> None:
    env = {"CONCLAVE__SERVER__STATE_DIR": str(state.path)}
    result = CliRunner().invoke(audit, ["verify"], env=env)
    assert (result.exit_code, "13 rows" in result.output) == (0, True)


def test_without_a_moment_prune_says_where_a_policy_is_looked_for(state: Any) -> None:
    assert "$CONCLAVE_CONFIG" in run(state, "prune").output
