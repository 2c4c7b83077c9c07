"""Receipts of what was forgotten: a signed one can be shown to people who have nothing but the public key."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from conclave.gateway.cli import main
from conclave.retrieval.receipts import about, broken_receipts, fault_of, read_receipts, write_receipt

SAID: dict[str, Any] = {"time": "2026-11-22T00:00:00+00:00", "documents": 1, "passages": 2, "left": {"words": 0}}
KEY = "ab" * 32


class Stamp:
    """A signature that anybody can see through: the message itself."""

    public = KEY

    def sign(self, message: bytes) -> bytes:
        return message


def is_stamped(message: bytes, signature: str, by: str) -> bool:
    return by == KEY and message.hex() == signature


@pytest.fixture
def receipt(tmp_path: Path) -> Mapping[str, Any]:
    return write_receipt(tmp_path, SAID, Stamp())


def test_what_is_signed_says_what_it_is_for(receipt: Mapping[str, Any]) -> None:
    """The key signs the heads of the audit record, too: neither may be taken for the other."""
    assert bytes.fromhex(receipt["signed"]["sig"]) == b"conclave knowledge receipt\n" + receipt["sha256"].encode()


def test_a_receipt_holds_as_it_is_printed_and_as_it_is_kept(tmp_path: Path, receipt: Mapping[str, Any]) -> None:
    write_receipt(tmp_path, SAID, Stamp())
    kept = read_receipts((tmp_path / "receipts.jsonl").read_text())
    printed = read_receipts(json.dumps(receipt, indent=1))
    assert [fault_of(one, is_stamped) for one in (*kept, *printed)] == [None, None, None]
    assert broken_receipts(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda one: {**one, "passages": 3}, "its hash is another"),
        (lambda one: {**one, "more": ""}, "its hash is another"),
        (lambda one: {name: one[name] for name in one if name != "signed"}, "not signed"),
        (lambda one: {**one, "signed": None}, "not signed"),
        (lambda one: {**one, "signed": "yes"}, "no signature"),
        (lambda one: {**one, "signed": {"key": 1, "sig": 2}}, "no signature"),
        (lambda one: {**one, "signed": {**one["signed"], "key": "cd" * 32}}, "no signature of a key that is trusted"),
        (lambda one: {**one, "signed": {**one["signed"], "sig": "ab"}}, "no signature of a key that is trusted"),
    ],
    ids=["changed", "more", "unsigned", "null", "word", "numbers", "another key", "another signature"],
)
def test_a_receipt_that_was_changed_proves_nothing(
    receipt: Mapping[str, Any], change: Callable[[Any], Any], fault: str
) -> None:
    (one,) = read_receipts(json.dumps(change(receipt)))
    assert fault in str(fault_of(one, is_stamped))


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", "{}", "3", '{"sha256": 3}', "[" * 100_000, '{"sha256": "a"}\nno json', "null\nnull"],
    ids=["empty", "words", "list", "object", "number", "hash", "deep", "second", "nulls"],
)
def test_what_is_no_receipt_says_what_was_meant(text: str) -> None:
    with pytest.raises(ValueError, match="not a receipt"):
        read_receipts(text)


def test_what_a_receipt_says_steers_no_terminal() -> None:
    said = about({"time": "\x1b[2J", "documents": ["\n"] * 999, "left": {"a": "b"}, "signed": 3})
    assert said.isprintable()
    assert len(said) <= 320


def run(state: Path, *args: object, ask: str | None = None) -> Result:
    return CliRunner().invoke(main, ["knowledge", "--state-dir", str(state), *map(str, args)], input=ask)


@pytest.fixture
def forgotten(tmp_path: Path) -> Path:
    """A state folder in which somebody was forgotten; the receipt is beside it, and the public key."""
    (tmp_path / "pay.md").write_text("Zebulon Quartz earns a salary in gold.\n")
    state = tmp_path / "state"
    assert run(state, "add", tmp_path / "pay.md").exit_code == 0
    done = run(state, "forget", "--subject", "Zebulon Quartz", "--yes")
    assert done.exit_code == 0, done.output
    (tmp_path / "receipt.json").write_text(done.stdout)
    key = CliRunner().invoke(main, ["audit", "--state-dir", str(state), "key"])
    (tmp_path / "audit.pem").write_text(key.stdout)
    return tmp_path


def test_a_receipt_is_checked_with_nothing_but_the_public_key(forgotten: Path) -> None:
    """A third party has no library and no state folder."""
    checked = run(forgotten / "nowhere", "receipt", forgotten / "receipt.json", "--public-key", forgotten / "audit.pem")
    assert checked.exit_code == 0, checked.output
    assert checked.stdout.startswith("holds: ")
    assert "0 documents and 1 passages, left of them: 0" in checked.stdout
    assert not (forgotten / "nowhere").exists()


def test_a_receipt_of_another_gateway_or_a_changed_one_does_not_hold(forgotten: Path) -> None:
    receipt = forgotten / "receipt.json"
    other = CliRunner().invoke(main, ["audit", "--state-dir", str(forgotten / "other"), "key"])
    (forgotten / "other.pem").write_text(other.stdout)
    strange = run(forgotten / "nowhere", "receipt", receipt, "--public-key", forgotten / "other.pem")
    assert (strange.exit_code, "no signature of a key that is trusted" in strange.stdout) == (1, True)
    receipt.write_text(receipt.read_text().replace('"passages": 1', '"passages": 9'))
    changed = run(forgotten / "state", "receipt", receipt)
    assert (changed.exit_code, "it was changed" in changed.stdout) == (1, True)


@pytest.mark.parametrize(("name", "said"), [("zebulon QUARTZ", ", for this name"), ("Jane Doe", ", not for this name")])
def test_whoever_has_the_library_can_say_for_whom_a_receipt_is(forgotten: Path, name: str, said: str) -> None:
    checked = run(forgotten / "state", "receipt", "--subject", name)
    assert checked.exit_code == 0, checked.output
    assert said in checked.stdout
    assert "ebulon" not in msgspec.json.encode((forgotten / "receipt.json").read_text()).decode()


@pytest.mark.parametrize(
    ("where", "args", "said"),
    [
        ("nowhere", ("receipt", "receipt.json"), "there is no key in"),
        ("nowhere", ("receipt", "--public-key", "audit.pem"), "No such file"),
        ("state", ("receipt", "audit.pem"), "not a receipt"),
        ("state", ("receipt", "receipt.json", "--public-key", "pay.md"), "no public key in the file"),
        ("state", ("receipt", "--subject", "a"), "subject"),
    ],
    ids=["no key", "no receipts", "no receipt", "no public key", "no subject"],
)
def test_what_cannot_be_checked_says_why(forgotten: Path, where: str, args: tuple[str, ...], said: str) -> None:
    given = [forgotten / one if (forgotten / one).is_file() else one for one in args]
    failed = run(forgotten / where, *given)
    assert failed.exit_code == 1
    assert said in failed.stderr


def test_nothing_is_forgotten_where_the_key_cannot_be_read(forgotten: Path) -> None:
    (forgotten / "more.md").write_text("The office is in Bremen.\n")
    run(forgotten / "state", "add", forgotten / "more.md")
    (forgotten / "state" / "keys" / "audit_ed25519").write_text("no key")
    failed = run(forgotten / "state", "forget", forgotten / "more.md", "--yes")
    assert failed.exit_code == 1
    assert "nothing was forgotten" in failed.stderr
    assert "Bremen" in run(forgotten / "state", "search", "Bremen").stdout
