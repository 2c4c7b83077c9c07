"""`conclave knowledge` as people and scripts use it; one of them is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from conclave.gateway.cli import main
from conclave.retrieval.cli import knowledge
from conclave.retrieval.library import Library


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "handbook"
    made.mkdir()
    (made / "leave.md").write_text("# Leave\n\nThirty days of vacation.\n")
    (made / "pay.md").write_text("# Pay\n\nZebulon Quartz earns a salary in gold.\n")
    return made


def run(state: Path, *args: object, ask: str | None = None) -> Result:
    command = ["knowledge", "--state-dir", str(state), *map(str, args)]
    return CliRunner().invoke(main, command, input=ask)


def test_add_list_search_verify_remove(tmp_path: Path, folder: Path) -> None:
    added = run(tmp_path, "add", folder, "--acl", "staff", "--trust", "trusted")
    assert added.exit_code == 0, added.output
    assert "2 new" in added.stdout
    rows = [msgspec.json.decode(line) for line in run(tmp_path, "list", "--json").stdout.splitlines()]
    assert [(row["source"], row["acl"], row["trust"]) for row in rows] == [
        ("handbook/leave.md", ["staff"], "trusted"),
        ("handbook/pay.md", ["staff"], "trusted"),
    ]
    best = msgspec.json.decode(run(tmp_path, "search", "how much vacation", "--limit", 1, "--json").stdout)
    assert (best["source"], best["heading"], best["acl"]) == ("handbook/leave.md", "Leave", ["staff"])
    assert "leave.md" in run(tmp_path, "search", "vacation", "--as", "staff").stdout
    nobody = run(tmp_path, "search", "vacation", "--anyone")
    assert (nobody.stdout, nobody.exit_code) == ("", 0)
    assert "among 0 passages" in nobody.stderr
    whole = run(tmp_path, "verify")
    assert whole.exit_code == 0
    assert "the library is whole" in whole.stdout
    (folder / "leave.md").write_text("changed")
    assert "changed since it was added" in run(tmp_path, "verify").stderr
    assert "1 documents removed" in run(tmp_path, "remove", "handbook/leave.md").stdout
    assert "leave.md" not in run(tmp_path, "search", "vacation").stdout


def test_forget_asks_and_prints_a_receipt(tmp_path: Path, folder: Path) -> None:
    run(tmp_path, "add", folder)
    assert run(tmp_path, "forget", "--subject", "Zebulon Quartz", ask="n\n").exit_code == 1
    assert "Zebulon" in run(tmp_path, "search", "Zebulon").stdout
    forgotten = run(tmp_path, "forget", "--subject", "Zebulon Quartz", "--yes")
    assert forgotten.exit_code == 0, forgotten.output
    receipt = msgspec.json.decode(forgotten.stdout)
    assert receipt["passages"] == 1
    assert set(receipt["left"].values()) == {0}
    (folder / "more.md").write_text("Zebulon Quartz is back.")
    again = run(tmp_path, "add", folder)
    assert "name a subject that was forgotten" in again.stderr
    assert "Zebulon" not in run(tmp_path, "search", "Zebulon").stdout


def test_what_is_left_out_stands_on_stderr_and_in_the_exit_status(tmp_path: Path, folder: Path) -> None:
    (folder / "empty.txt").write_bytes(b"")
    added = run(tmp_path, "add", folder)
    assert added.exit_code == 1
    assert f"left out: {folder / 'empty.txt'}: it is empty" in added.stderr
    assert "2 new" in added.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["list"], "there is no library in"),
        (["search", "x"], "there is no library in"),
        (["remove", "x"], "there is no library in"),
        (["verify"], "there is no library in"),
        (["add", "nowhere.md", "--collection", "a b"], "cannot be a collection"),
        (["add", "nowhere.md", "--acl", ""], "cannot be a tag"),
        (["add", "nowhere.md", "--acl", "a", "--public"], "exclude each other"),
        (["add", "nowhere.md", "--overlap", "200"], "at most half"),
        (["add"], "Missing argument"),
        (["forget"], "say what to forget"),
        (["forget", "--subject", "x"], "at least three letters"),
        (["search", "x", "--limit", "0"], "--limit"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_is_said(tmp_path: Path, args: list[str], said: str) -> None:
    refused = run(tmp_path / "state", *args)
    assert refused.exit_code in {1, 2}
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "state").exists(), "and nothing was made"


def test_places_that_are_not_there_are_named(tmp_path: Path, folder: Path) -> None:
    run(tmp_path, "add", folder)
    assert "not in the library: nothing.md" in run(tmp_path, "remove", "nothing.md").stderr
    assert run(tmp_path, "forget", "nothing.md", "--yes").exit_code == 1
    assert "not in the library: batch 2026" in run(tmp_path, "forget", "--batch", "2026").stderr
    assert "not in the library: collection legal" in run(tmp_path, "forget", "--collection", "legal").stderr


def test_a_folder_without_files_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    added = run(tmp_path, "add", tmp_path / "empty")
    assert (added.exit_code, "no file to add was found there" in added.stderr) == (0, True)


def test_without_an_encoder_it_says_which_command_has_one(tmp_path: Path, folder: Path) -> None:
    refused = CliRunner().invoke(knowledge, ["--state-dir", str(tmp_path), "add", str(folder)])
    assert "use the command `conclave knowledge`" in refused.stderr


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_run_that_is_stopped_leaves_a_whole_library_and_goes_on(tmp_path: Path, how: signal.Signals) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(400):
        (many / f"{number}.md").write_text(f"# Number {number}\n\n" + f"The word is apple{number}. " * 40)
    command = [
        sys.executable,
        "-m",
        "conclave.gateway.cli",
        "knowledge",
        "--state-dir",
        str(tmp_path),
        "add",
        str(many),
    ]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ)
    database = tmp_path / "knowledge" / "knowledge.db"
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and not _documents(database):
            time.sleep(0.02)
        started.send_signal(how)
        _, said = started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode != 0
    if how is signal.SIGINT:
        assert b"goes on from here" in said
        assert b"Traceback" not in said
    before = _documents(database)
    assert 0 < before < 400
    goes_on = run(tmp_path, "add", many)
    assert goes_on.exit_code == 0, goes_on.output
    assert f"{400 - before} new" in goes_on.stdout
    assert f"{before} unchanged" in goes_on.stdout
    assert run(tmp_path, "verify").exit_code == 0
    assert "many/399.md" in run(tmp_path, "search", "apple399", "--limit", "1").stdout


def _documents(database: Path) -> int:
    if not database.is_file():
        return 0
    try:
        library = Library.open(database.parent)
    except Exception:  # noqa: BLE001  it is just being made
        return 0
    try:
        return len(library.documents())
    finally:
        library.close()
