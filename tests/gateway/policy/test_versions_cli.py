"""`conclave policy`: what a person sees of the versions, and what going back leaves behind."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from conclave.gateway.policy.canonical import digest_of
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.store import PolicyStore
from conclave.gateway.policy.versions_cli import policy
from conclave.gateway.settings import load_settings
from conclave.gateway.state.sql import Database

URL = "http://127.0.0.1:1/v1"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database.of(None, tmp_path / "state").open()
    yield found
    found.close()


@pytest.fixture
def store(database: Database) -> PolicyStore:
    """Two versions, as a file brought them."""
    made = PolicyStore(database)
    made.hear_file(document("m"), source="conclave.yaml")
    made.hear_file(document("n"), source="conclave.yaml")
    return made


def document(model: str, **expert: Any) -> PolicyDocument:
    experts = {"fast": {"base_url": URL, "model": model, **expert}}
    return complete(PolicyDocument.model_validate({"experts": experts}), {})


def run(tmp_path: Path, command: str, *arguments: str, config: str = "/dev/null") -> Result:
    where = ["--config", config, "--state-dir", str(tmp_path / "state")]
    return CliRunner().invoke(policy, [command, *where, *arguments])


def test_the_list_says_which_version_is_in_force(tmp_path: Path, store: PolicyStore) -> None:
    lines = run(tmp_path, "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["number", "1", "2"]
    assert [line.endswith("in force") for line in lines] == [False, False, True]
    newest = store.newest()
    assert newest is not None
    assert lines[2].split()[2:6] == ["file", newest.digest[:12], "-", "conclave.yaml"]


def test_the_list_is_there_for_programs_too_and_may_be_short(tmp_path: Path, store: PolicyStore) -> None:
    (line,) = run(tmp_path, "list", "-n", "1", "--json").stdout.splitlines()
    row = json.loads(line)
    assert (row["number"], row["origin"], row["author"], row["in_force"]) == (2, "file", None, True)
    assert "document" not in row


def test_before_the_first_start_there_is_nothing_to_list(tmp_path: Path) -> None:
    done = run(tmp_path, "list")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "No versions yet" in done.stderr


def test_a_difference_alone_stands_on_stdout(tmp_path: Path, store: PolicyStore) -> None:
    done = run(tmp_path, "diff", "1", "2")
    assert (done.exit_code, done.stdout) == (0, '~ experts.fast.model: "m" -> "n"\n')
    same = run(tmp_path, "diff", "1", "1")
    assert (same.exit_code, same.stdout) == (0, "")
    assert "the same" in same.stderr


@pytest.mark.parametrize(("arguments", "model"), [((), "n"), (("1",), "m")], ids=["in-force", "by-number"])
def test_a_version_that_is_shown_can_be_used_as_a_file(
    tmp_path: Path, store: PolicyStore, arguments: tuple[str, ...], model: str
) -> None:
    shown = run(tmp_path, "show", *arguments).stdout
    assert shown.startswith(f"# version {arguments[0] if arguments else 2}, ")
    file = tmp_path / "shown.yaml"
    file.write_text(shown)
    assert digest_of(load_settings(file).policy) == digest_of(document(model))


def test_going_back_makes_a_new_version_with_its_author(tmp_path: Path, store: PolicyStore) -> None:
    done = run(tmp_path, "rollback", "1", "--author", "ann")
    assert done.exit_code == 0, done.output
    assert done.stderr == "Version 3 says what version 1 said. Running gateways take it within 2 s.\n"
    newest = store.newest()
    assert newest is not None
    assert (newest.number, newest.origin, newest.source, newest.author) == (3, "rollback", "version 1", "ann")
    assert newest.read() == document("m")


def test_going_back_to_what_is_in_force_does_nothing(tmp_path: Path, store: PolicyStore) -> None:
    done = run(tmp_path, "rollback", "2")
    assert done.exit_code == 0
    assert "nothing to do" in done.stderr
    assert len(store.last(100)) == 2


def test_going_back_works_while_the_file_is_wrong(tmp_path: Path, store: PolicyStore) -> None:
    """That is when it is needed."""
    broken = tmp_path / "conclave.yaml"
    broken.write_text("server: {policy_refresh_s: 7}\npolicy: {default: [nobody], moods: good}\n")
    done = run(tmp_path, "rollback", "1", config=str(broken))
    assert done.exit_code == 0, done.output
    assert "within 7 s" in done.stderr


def test_keys_that_are_not_there_are_a_warning(tmp_path: Path, store: PolicyStore) -> None:
    store.hear_file(document("k", api_key_env="CONCLAVE_TEST_NO_SUCH_KEY"), source="conclave.yaml")
    store.hear_file(document("z"), source="conclave.yaml")
    done = run(tmp_path, "rollback", "3")
    assert done.exit_code == 0
    assert "warning: policy.experts.fast: the variable CONCLAVE_TEST_NO_SUCH_KEY is not set" in done.stderr
    assert len(store.last(100)) == 5


@pytest.mark.parametrize(
    "arguments", [("show", "9"), ("diff", "1", "9"), ("diff", "9", "1"), ("rollback", "9")], ids=" ".join
)
def test_a_version_that_is_not_there_is_a_wrong_use(
    tmp_path: Path, store: PolicyStore, arguments: tuple[str, ...]
) -> None:
    done = run(tmp_path, *arguments)
    assert done.exit_code == 2
    assert "there is not a version 9; see `conclave policy list`" in done.stderr


@pytest.mark.parametrize("number", ["0", "-1", "x", "99999999999999999999999"])
def test_a_number_that_is_none_is_refused(tmp_path: Path, store: PolicyStore, number: str) -> None:
    done = run(tmp_path, "show", "--", number)
    assert done.exit_code == 2
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_a_version_that_somebody_changed_is_not_put_in_force(
    tmp_path: Path, store: PolicyStore, database: Database
) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE policy_versions SET document = '{}' WHERE number = 1"))
    for arguments in (("rollback", "1"), ("diff", "1", "2"), ("show", "1")):
        done = run(tmp_path, *arguments)
        assert (done.exit_code, isinstance(done.exception, SystemExit)) == (1, True), done.output
    assert len(store.last(100)) == 2


def test_a_database_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    done = run(tmp_path, "list")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: cannot open the state database")
    assert done.stderr.count("\n") == 1


def test_a_strange_author_cannot_steer_the_terminal(tmp_path: Path, store: PolicyStore) -> None:
    run(tmp_path, "rollback", "1", "--author", "\x1b[2Jann")
    assert "\x1b" not in run(tmp_path, "list").stdout
    assert "?[2Jann" in run(tmp_path, "list").stdout
