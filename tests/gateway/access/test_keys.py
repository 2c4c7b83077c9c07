import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from conclave.gateway.access.key_table import KeyGoneError, KeyTable
from conclave.gateway.access.keys import KeyRing, Snapshot, StoredKey, digest_of, new_token, read_pepper
from conclave.gateway.access.scope import Scope
from conclave.gateway.state.sql import Database

PEPPER = b"p" * 32


class Wall:
    def __init__(self) -> None:
        self.s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.s


class FixedSource:
    """A KeySource that holds what it is told, and fails when it is told to."""

    def __init__(self, keys: Sequence[StoredKey] = ()) -> None:
        self.number, self.keys, self.broken, self.asked = 1, tuple(keys), False, 0

    def changed_since(self, number: int | None) -> Snapshot | None:
        self.asked += 1
        if self.broken:
            raise OSError("unreachable")
        return None if number == self.number else Snapshot(self.number, self.keys)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  what is waited for happens in a thread, and nobody sets an event
            await asyncio.sleep(0.01)


def stored(token: str, *, expires_at_s: int | None = None, revoked_at_s: int | None = None) -> StoredKey:
    key_id = token.split("_")[1]
    return StoredKey(key_id, digest_of(token, PEPPER), "acme", "test", Scope(), 0, expires_at_s, revoked_at_s)


def ring_of(*keys: StoredKey, wall: Wall | None = None) -> KeyRing:
    ring = KeyRing(FixedSource(keys), PEPPER, now=wall or Wall())
    ring.refresh()
    return ring


def test_a_key_holds_256_random_bits_and_an_id() -> None:
    key_id, token = new_token()
    prefix, found, secret = token.split("_")
    assert (prefix, found, len(bytes.fromhex(secret))) == ("cv", key_id, 32)
    assert new_token()[1] != token


def test_nothing_stored_contains_the_secret() -> None:
    _, token = new_token()
    assert token.split("_")[2] not in repr(stored(token))


def test_a_good_key_is_found() -> None:
    _, token = new_token()
    found = ring_of(stored(token)).verify(token)
    assert found is not None
    assert found.tenant == "acme"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: token[:-1] + ("0" if token[-1] != "0" else "1"),
        lambda token: token[:-1],
        lambda token: token + "0",
        lambda token: token.upper(),
        lambda token: token.removeprefix("cv_"),
        lambda token: token.rpartition("_")[0] + "_",
        lambda token: "cv_" + "0" * 12 + "_" + token.split("_")[2],
        lambda token: token + "\u00e9",
        lambda token: token + "0" * 10_000,
        lambda _: "",
        lambda _: "cv_",
    ],
    ids=["last digit", "short", "long", "case", "no prefix", "no secret", "other id", "accent", "huge", "empty", "cv_"],
)
def test_a_key_that_differs_in_anything_is_unknown(spoil: Callable[[str], str]) -> None:
    _, token = new_token()
    assert ring_of(stored(token)).verify(spoil(token)) is None


def test_another_pepper_makes_every_key_unknown() -> None:
    """A copy of the database alone is of no use to who stole it."""
    _, token = new_token()
    ring = KeyRing(FixedSource([stored(token)]), b"q" * 32, now=Wall())
    ring.refresh()
    assert ring.verify(token) is None


def test_expiry_is_looked_at_on_each_use() -> None:
    _, token = new_token()
    wall = Wall()
    ring = ring_of(stored(token, expires_at_s=int(wall.s) + 10), wall=wall)
    assert ring.verify(token) is not None
    wall.s += 10
    assert ring.verify(token) is None
    assert not ring.has_active()


def test_a_revoked_key_is_unknown_but_the_ring_is_not_empty() -> None:
    """Otherwise revoking the last key would open the door to everyone."""
    _, token = new_token()
    ring = ring_of(stored(token, revoked_at_s=5))
    assert (ring.verify(token), ring.empty, ring.has_active()) == (None, False, False)


def test_the_keys_are_read_again_only_when_they_changed() -> None:
    source = FixedSource()
    ring = KeyRing(source, PEPPER)
    ring.refresh()
    _, token = new_token()
    source.keys = (stored(token),)
    ring.refresh()
    assert ring.empty
    source.number += 1
    ring.refresh()
    assert not ring.empty


async def test_a_running_ring_notices_a_new_key() -> None:
    source = FixedSource()
    ring = KeyRing(source, PEPPER)
    async with ring.following(every_s=0.01):
        assert ring.empty
        _, token = new_token()
        source.keys, source.number = (stored(token),), 2
        await until(lambda: ring.verify(token) is not None)


async def test_a_database_out_of_reach_leaves_the_keys_as_they_were_and_says_so() -> None:
    _, token = new_token()
    source = FixedSource([stored(token)])
    ring = KeyRing(source, PEPPER)
    async with ring.following(every_s=0.01):
        assert ring.health == "ok"
        source.broken = True
        await until(lambda: ring.health != "ok")
        assert ring.verify(token) is not None
        source.broken = False
        await until(lambda: ring.health == "ok")


async def test_a_ring_that_is_no_longer_followed_asks_no_more() -> None:
    source = FixedSource()
    async with KeyRing(source, PEPPER).following(every_s=0.01):
        pass
    asked = source.asked
    await asyncio.sleep(0.05)
    assert source.asked == asked


class SilentSource(FixedSource):
    """Answers at start, and then no more until it is told to: a database that was stopped, not one that refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()
        self.waits: threading.Thread | None = None

    def changed_since(self, number: int | None) -> Snapshot | None:
        found = super().changed_since(number)
        if number is not None:
            self.waits = threading.current_thread()
            self.told.wait()
        return found


async def test_a_database_that_does_not_answer_is_said_and_holds_up_no_end() -> None:
    source = SilentSource()
    ring = KeyRing(source, PEPPER, late_s=0.05)
    try:
        async with asyncio.timeout(5), ring.following(every_s=0.01):
            await until(lambda: ring.health != "ok")
            assert source.asked == 2, "one question at a time"
        assert source.waits is not None
        assert source.waits.daemon, "the end of the program would wait for it"
    finally:
        source.told.set()


async def test_a_database_that_answers_late_is_trusted_again() -> None:
    source = SilentSource()
    ring = KeyRing(source, PEPPER, late_s=0.05)
    try:
        async with ring.following(every_s=0.01):
            await until(lambda: ring.health != "ok")
            source.told.set()
            await until(lambda: ring.health == "ok")
    finally:
        source.told.set()


def test_the_pepper_is_made_once_and_private(tmp_path: Path) -> None:
    pepper = read_pepper(tmp_path)
    assert len(pepper) == 32
    assert read_pepper(tmp_path) == pepper
    assert (tmp_path / "keys" / "api_key_pepper").stat().st_mode & 0o777 == 0o600


def test_a_damaged_pepper_is_an_error(tmp_path: Path) -> None:
    read_pepper(tmp_path)
    (tmp_path / "keys" / "api_key_pepper").write_bytes(b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        read_pepper(tmp_path)


def test_a_key_lives_through_the_table_as_it_was_made(tmp_path: Path) -> None:
    database = Database.of(None, tmp_path).open()
    wall = Wall()
    table = KeyTable(database, now=wall)
    ring = KeyRing(table, PEPPER, now=wall)
    ring.refresh()
    assert ring.empty
    key, token = table.create(pepper=PEPPER, tenant="acme", name="app", experts=["b", "a"], expires_in_s=60)
    ring.refresh()
    assert ring.verify(token) == key
    assert (key.scope.reaches("a"), key.scope.reaches("c")) == (True, False)
    assert table.revoke(key.key_id)
    ring.refresh()
    assert ring.verify(token) is None
    database.close()


def test_revoking_twice_keeps_the_first_time_and_changes_nothing(tmp_path: Path) -> None:
    database = Database.of(None, tmp_path).open()
    wall = Wall()
    table = KeyTable(database, now=wall)
    key, _ = table.create(pepper=PEPPER, tenant="t", name="n")
    table.revoke(key.key_id)
    snapshot = table.changed_since(None)
    wall.s += 100
    assert table.revoke(key.key_id)
    assert snapshot is not None
    assert table.changed_since(snapshot.number) is None
    assert table.all()[0].revoked_at_s == int(wall.s) - 100
    database.close()


DAY_S = 86_400


@pytest.mark.parametrize(
    ("made_for_s", "given_s", "old_ends_s", "new_ends_s"),
    [
        (None, None, 3600, None),
        (None, 60, 3600, 60),
        (30 * DAY_S, None, 3600, 30 * DAY_S),
        (30 * DAY_S, 60, 3600, 60),
        (1000 + 1800, None, 1800, 2800),
    ],
    ids=["for ever", "given", "as long again", "shorter", "ends before the overlap"],
)
def test_when_a_rotated_key_and_its_successor_end(
    tmp_path: Path, made_for_s: int | None, given_s: int | None, old_ends_s: int, new_ends_s: int | None
) -> None:
    """Rotated 1,000 s after it was made, with an overlap of an hour: never later than the old key's own end."""
    database = Database.of(None, tmp_path).open()
    wall = Wall()
    table = KeyTable(database, now=wall)
    key, token = table.create(pepper=PEPPER, tenant="t", name="n", expires_in_s=made_for_s)
    wall.s += 1000
    rotated = table.rotate(key.key_id, pepper=PEPPER, overlap_s=3600, expires_in_s=given_s)
    assert rotated is not None
    ring = KeyRing(table, PEPPER, now=wall)
    ring.refresh()
    assert ring.verify(token) == rotated.old
    assert ring.verify(rotated.token) == rotated.new
    assert rotated.old.expires_at_s == int(wall.s) + old_ends_s
    assert rotated.new.expires_at_s == (None if new_ends_s is None else int(wall.s) + new_ends_s)
    wall.s += old_ends_s
    assert ring.verify(token) is None
    database.close()


def test_a_key_that_has_ended_is_not_prolonged_by_rotating_it(tmp_path: Path) -> None:
    database = Database.of(None, tmp_path).open()
    wall = Wall()
    table = KeyTable(database, now=wall)
    key, _ = table.create(pepper=PEPPER, tenant="t", name="n", expires_in_s=60)
    wall.s += 60
    with pytest.raises(KeyGoneError, match="is expired"):
        table.rotate(key.key_id, pepper=PEPPER, overlap_s=3600)
    assert table.rotate("nope", pepper=PEPPER, overlap_s=3600) is None
    assert len(table.all()) == 1
    database.close()


def test_a_key_is_rotated_once_and_then_its_successor_is(tmp_path: Path) -> None:
    """The overlap is the old key's new end, and no life to give to another successor."""
    database = Database.of(None, tmp_path).open()
    table = KeyTable(database, now=Wall())
    key, _ = table.create(pepper=PEPPER, tenant="t", name="n")
    first = table.rotate(key.key_id, pepper=PEPPER, overlap_s=DAY_S)
    assert first is not None
    with pytest.raises(KeyGoneError, match=f"rotate its successor {first.new.key_id}, or give --expires"):
        table.rotate(key.key_id, pepper=PEPPER, overlap_s=DAY_S)
    second = table.rotate(first.new.key_id, pepper=PEPPER, overlap_s=DAY_S)
    assert second is not None
    assert (second.new.expires_at_s, second.new.successor) == (None, None)
    given = table.rotate(key.key_id, pepper=PEPPER, overlap_s=DAY_S, expires_in_s=2 * DAY_S)
    assert given is not None
    assert given.new.expires_at_s == int(Wall().s) + 2 * DAY_S
    assert len(table.all()) == 4
    database.close()


def test_revoking_an_unknown_key_says_so(tmp_path: Path) -> None:
    database = Database.of(None, tmp_path).open()
    assert not KeyTable(database).revoke("nope")
    database.close()
