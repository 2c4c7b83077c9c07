"""Whether a call was signed, for the first time, by a key of its tenant; and the commands that make and use keys."""

import base64
import secrets
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from conclave.gateway.access.envelope import Sealed, Unseal
from conclave.gateway.access.envelope_cli import envelope as cli
from conclave.gateway.errors import Forbidden, Unavailable
from conclave.gateway.policy.envelope import Mode, Seals
from conclave.gateway.state.nonces import LocalNonces
from conclave.safety.boundary.envelope import HEADER, Ed25519Verifier, HmacKey, open_header, seal

BODY = b"{}"
KEY = HmacKey(b"k" * 32)


@dataclass(frozen=True)
class Head:
    envelope: str | None = None


class Clock:
    s = 5000.0

    def __call__(self) -> float:
        return self.s


class Door:
    def __init__(self, mode: Mode = "required", *, most: int = 1000, kids: tuple[str, ...] = ("app",)) -> None:
        self.clock = Clock()
        self.seals = Seals(mode, 60.0, dict.fromkeys(kids, KEY))
        self.unseal = Unseal(LocalNonces(now=self.clock, most=most), now=self.clock)

    def signed(self, body: bytes = BODY, *, kid: str = "app", nonce: str | None = None) -> Head:
        return Head(seal(body, kid=kid, signer=KEY, now_s=self.clock.s, nonce=nonce or secrets.token_urlsafe(18)))

    async def opens(self, head: Head, body: bytes = BODY) -> Sealed | str | None:
        """What was found, or the rule that was broken."""
        try:
            return await self.unseal(self.seals, head, body)
        except Forbidden as error:
            return str(error.param).removeprefix(f"{HEADER}.")


async def test_of_a_thousand_replays_none_is_accepted() -> None:
    door = Door()
    head = door.signed(nonce="n" * 16)
    assert await door.opens(head) == Sealed("app", 5000, "n" * 16)
    for number in range(1000):
        door.clock.s = 5000 + number / 8  # also when the window has passed
        assert await door.opens(head) in {"replay", "time"}


async def test_a_refusal_is_not_to_be_retried_and_says_which_rule_was_broken() -> None:
    with pytest.raises(Forbidden) as refused:
        await Door().unseal(Door().seals, Head(), BODY)
    error = refused.value
    assert (error.status, error.code, error.retry) == (403, "bad_envelope", False)
    assert error.param == f"{HEADER}.missing"


async def test_a_replay_with_another_body_uses_nothing_up() -> None:
    """Whoever stands in between cannot make the honest call the second one."""
    door = Door()
    head = door.signed()
    assert await door.opens(head, b"changed") == "body"
    assert isinstance(await door.opens(head), Sealed)


@pytest.mark.parametrize(
    ("mode", "without", "broken"),
    [("off", None, None), ("optional", None, "malformed"), ("required", "missing", "malformed")],
)
async def test_the_mode_says_what_a_call_without_a_sound_envelope_gets(
    mode: Mode, without: str | None, broken: str | None
) -> None:
    door = Door(mode)
    assert await door.opens(Head()) == without
    assert await door.opens(Head("no.envelope")) == broken


async def test_old_and_new_key_are_good_at_the_same_time_and_a_dropped_one_is_not() -> None:
    door = Door(kids=("2025", "2026"))
    assert isinstance(await door.opens(door.signed(kid="2025")), Sealed)
    assert isinstance(await door.opens(door.signed(kid="2026")), Sealed)
    door.seals = Seals("required", 60.0, {"2026": KEY})
    assert await door.opens(door.signed(kid="2025")) == "key"


async def test_a_gateway_that_has_just_started_takes_nothing_signed_before() -> None:
    """Its predecessor may have served it."""
    door = Door()
    head = door.signed()
    door.clock.s += 2
    again = Door()
    again.clock.s = door.clock.s
    again.unseal = Unseal(now=again.clock)
    assert await again.opens(head) == "replay"
    assert isinstance(await again.opens(again.signed()), Sealed)


async def test_more_calls_than_can_be_remembered_are_told_to_come_again() -> None:
    door = Door(most=1)
    await door.opens(door.signed())
    with pytest.raises(Unavailable):
        await door.opens(door.signed())


async def test_a_large_body_is_hashed_in_a_thread_to_the_same_end() -> None:
    door, body = Door(), b"x" * 1_000_000
    head = door.signed(body)
    assert await door.opens(head, body + b"y") == "body"
    assert isinstance(await door.opens(head, body), Sealed)


def test_the_commands_make_a_key_and_sign_with_it(tmp_path: Path) -> None:
    run, key = CliRunner(), tmp_path / "client.pem"
    made = run.invoke(cli, ["new", "--key-file", str(key)])
    assert made.exit_code == 0
    assert key.stat().st_mode & 0o777 == 0o600
    verifier = Ed25519Verifier(base64.b64decode(made.stdout))
    done = run.invoke(cli, ["sign", "--kid", "app", "--key-file", str(key)], input=BODY)
    name, _, value = done.stdout.strip().partition(": ")
    envelope = open_header(value, BODY, keys={"app": verifier}, now_s=2e9, window_s=1e9)
    assert (name, envelope.kid) == (HEADER, "app")
    again = run.invoke(cli, ["new", "--key-file", str(key)])
    assert (again.exit_code, "is there already, and no key is written over" in again.stderr) == (1, True)
    assert ("for envelope.keys in the policy" in made.stderr, "PRIVATE" in made.output) == (True, False)


def test_a_shared_secret_may_come_from_a_variable(tmp_path: Path) -> None:
    run, key = CliRunner(), tmp_path / "secret"
    assert run.invoke(cli, ["new", "--algorithm", "hmac-sha256", "--key-file", str(key)]).stdout == ""
    secret = key.read_text().strip()
    arguments = ["sign", "--kid", "app", "--algorithm", "hmac-sha256", "--key-env", "SECRET"]
    done = run.invoke(cli, arguments, input=BODY, env={"SECRET": secret})
    value = done.stdout.strip().partition(": ")[2]
    keys = {"app": HmacKey(secret.encode())}
    assert open_header(value, BODY, keys=keys, now_s=2e9, window_s=1e9).kid == "app"
    assert secret not in done.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kid", "app"], "say where the secret is"),
        (["--kid", "app", "--key-file", "nowhere"], "No such file"),
        (["--kid", "app", "--key-env", "UNSET_VARIABLE"], "not set"),
        (["--kid", "app", "--key-file", "junk"], "no key of algorithm ed25519"),
        (["--kid", "app", "--algorithm", "hmac-sha256", "--key-file", "junk"], "32 bytes at least"),
        (["--kid", "a b", "--algorithm", "hmac-sha256", "--key-env", "LONG"], "a kid is"),
    ],
    ids=["none", "missing", "unset", "junk", "short", "kid"],
)
def test_what_cannot_sign_is_said_in_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"\x00junk")
    placed = [str(junk) if word == "junk" else word for word in arguments]
    done = CliRunner().invoke(cli, ["sign", *placed], input=BODY, env={"LONG": "s" * 40})
    assert done.exit_code > 0
    assert words in done.output
    assert "Traceback" not in done.output
