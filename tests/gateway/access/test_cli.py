from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from conclave.gateway.access.cli import keys
from conclave.gateway.access.key_table import KeyTable
from conclave.gateway.access.keys import KeyRing, read_pepper
from conclave.gateway.state.sql import Database


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def conclave_keys(state: Path, *arguments: str) -> Result:
    command, *rest = arguments
    return CliRunner().invoke(keys, [command, "--config", "/dev/null", "--state-dir", str(state), *rest])


def ring_of(state: Path) -> KeyRing:
    database = Database.of(None, state).open()
    ring = KeyRing(KeyTable(database), read_pepper(state))
    ring.refresh()
    database.close()
    return ring


def test_a_created_key_is_alone_on_stdout_and_opens_the_door(state: Path) -> None:
    made = conclave_keys(
        state, "create", "--name", "app", "--tenant", "acme", "--experts", "code, law", "--expires", "30d"
    )
    assert made.exit_code == 0, made.output
    assert "no call is served without one" in made.stderr
    assert "no call is served without one" not in conclave_keys(state, "create", "--name", "second").stderr
    key = ring_of(state).verify(made.stdout.strip())
    assert key is not None
    assert (key.tenant, key.name, key.scope.experts) == ("acme", "app", frozenset({"code", "law"}))
    assert key.expires_at_s == key.created_at_s + 30 * 86_400


def test_the_key_is_nowhere_in_the_state_folder(state: Path) -> None:
    """Printed once: neither the database nor its side files hold it."""
    token = conclave_keys(state, "create", "--name", "app").stdout.strip()
    secret = token.split("_")[2].encode()
    files = [path for path in state.rglob("*") if path.is_file()]
    assert files
    assert not any(secret in path.read_bytes() for path in files)


def test_list_shows_the_state_of_each_key_and_never_the_key(state: Path) -> None:
    tokens = [conclave_keys(state, "create", "--name", name).stdout.strip() for name in ("one", "two")]
    conclave_keys(state, "revoke", tokens[0].split("_")[1])
    shown = conclave_keys(state, "list", "--json").stdout
    rows = [msgspec.json.decode(line) for line in shown.splitlines()]
    assert sorted((row["name"], row["state"]) for row in rows) == [("one", "revoked"), ("two", "active")]
    assert not any(token.split("_")[2] in shown for token in tokens)
    table = conclave_keys(state, "list").stdout.splitlines()
    assert table[0].split()[:3] == ["id", "state", "tenant"]
    assert len(table) == 3


def test_a_revoked_key_opens_nothing(state: Path) -> None:
    token = conclave_keys(state, "create", "--name", "app").stdout.strip()
    assert ring_of(state).verify(token) is not None
    assert conclave_keys(state, "revoke", token.split("_")[1]).exit_code == 0
    assert ring_of(state).verify(token) is None


def test_revoke_takes_a_whole_key_too(state: Path) -> None:
    token = conclave_keys(state, "create", "--name", "app").stdout.strip()
    revoked = conclave_keys(state, "revoke", token)
    assert revoked.exit_code == 0
    assert token.split("_")[2] not in revoked.output


def test_a_rotated_key_has_a_successor_and_both_are_good_for_the_overlap(state: Path) -> None:
    old = conclave_keys(state, "create", "--name", "app", "--tenant", "acme", "--experts", "code").stdout.strip()
    rotated = conclave_keys(state, "rotate", old.split("_")[1], "--overlap", "2h")
    assert rotated.exit_code == 0, rotated.output
    new = rotated.stdout.strip()
    ring = ring_of(state)
    before, after = ring.verify(old), ring.verify(new)
    assert before is not None
    assert after is not None
    assert (after.tenant, after.name, after.scope, after.expires_at_s) == ("acme", "app", before.scope, None)
    assert before.expires_at_s == after.created_at_s + 2 * 3600
    assert old.split("_")[2] not in rotated.output
    listed = [msgspec.json.decode(line) for line in conclave_keys(state, "list", "--json").stdout.splitlines()]
    assert [(row["name"], row["state"]) for row in listed] == [("app", "active")] * 2


def test_rotate_takes_a_whole_key_too(state: Path) -> None:
    old = conclave_keys(state, "create", "--name", "app").stdout.strip()
    assert conclave_keys(state, "rotate", old).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("000000000000",), 1, "keys list"),
        (("REVOKED",), 1, "is revoked: make a new one"),
        (("REVOKED", "--overlap", "soon"), 2, "12h, 30d or 8w"),
        ((), 2, "KEY_ID"),
    ],
    ids=["unknown", "revoked", "no length of time", "no id"],
)
def test_a_key_that_cannot_be_rotated_says_why(state: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    revoked = conclave_keys(state, "create", "--name", "app").stdout.split("_")[1]
    conclave_keys(state, "revoke", revoked)
    rotated = conclave_keys(state, "rotate", *(revoked if one == "REVOKED" else one for one in arguments))
    assert rotated.exit_code == code
    assert said in rotated.output
    assert len(conclave_keys(state, "list", "--json").stdout.splitlines()) == 1


def test_revoking_an_unknown_key_fails(state: Path) -> None:
    revoked = conclave_keys(state, "revoke", "000000000000")
    assert revoked.exit_code == 1
    assert "keys list" in revoked.output


def test_listing_no_keys_names_the_command_that_makes_one(state: Path) -> None:
    listed = conclave_keys(state, "list")
    assert (listed.exit_code, listed.stdout) == (0, "")
    assert "conclave keys create" in listed.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--name", "n", "--expires", "soon"), "30d"),
        (("--name", "n", "--expires", "0d"), "30d"),
        (("--name", "n", "--experts", "a,,b"), "name of an expert"),
        (("--name", "n", "--tenant", "two words"), "tenant"),
        (("--name", "tab\there"), "printable"),
        ((), "--name"),
    ],
    ids=["no unit", "zero", "empty expert", "tenant", "control character", "no name"],
)
def test_a_mistake_in_an_option_is_explained(state: Path, arguments: tuple[str, ...], said: str) -> None:
    made = conclave_keys(state, "create", *arguments)
    assert made.exit_code == 2
    assert said in made.output


def test_a_state_that_cannot_be_used_ends_in_one_line(state: Path) -> None:
    state.mkdir()
    (state / "conclave.db").write_bytes(b"not a database" * 100)
    made = conclave_keys(state, "list")
    assert made.exit_code == 1
    assert made.output.startswith("Error: cannot open the state database")
    assert made.output.count("\n") == 1
