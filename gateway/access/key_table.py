"""Where keys are kept: made, listed, rotated and revoked here, in the state database.

Never on the way of a call; it blocks.
"""

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
from sqlalchemy import insert, select, update

from conclave.gateway.access.keys import Snapshot, StoredKey, digest_of, new_token
from conclave.gateway.access.scope import Scope
from conclave.gateway.state.sql import Database, change_number, note_change
from conclave.gateway.state.tables import api_keys

TOPIC: Final = "api_keys"


class KeyGoneError(Exception):
    """The key has ended, or another has its place; the message says how."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """The old key with its end, the new one, and the new key itself, which nothing can show again."""

    old: StoredKey
    new: StoredKey
    token: str


class KeyTable:
    """The table of keys. Every change raises the topic's number, by which the rings notice it."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    def create(  # noqa: PLR0913  each is a separate fact of the key, all keyword-only
        self,
        *,
        pepper: bytes,
        tenant: str,
        name: str,
        experts: Iterable[str] | None = None,
        scopes: Iterable[str] | None = None,
        expires_in_s: int | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> tuple[StoredKey, str]:
        """A new key, as it is stored, and the key itself, which nothing can show again."""
        key_id, token = new_token(random_bytes)
        now_s = int(self._now())
        key = StoredKey(
            key_id=key_id,
            digest=digest_of(token, pepper),
            tenant=tenant,
            name=name,
            scope=Scope(
                None if experts is None else frozenset(experts),
                None if scopes is None else tuple(dict.fromkeys(scopes)),
            ),
            created_at_s=now_s,
            expires_at_s=None if expires_in_s is None else now_s + expires_in_s,
        )
        with self._database.write() as connection:
            connection.execute(insert(api_keys).values(**_row(key)))
            note_change(connection, TOPIC)
        return key, token

    def rotate(
        self,
        key_id: str,
        *,
        pepper: bytes,
        overlap_s: int,
        expires_in_s: int | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> "Rotated | None":
        """A new secret for the same tenant, scope and name; the old one is good for `overlap_s` more, at the most.

        The new key lives as long as the old one was made to, unless `expires_in_s` is given. None if there is no such
        key; raises KeyGoneError for one that is revoked or expired: what has ended is not prolonged. So it does,
        unless `expires_in_s` is given, for one that was rotated already: its own end is that of the overlap.
        """
        now_s = int(self._now())
        with self._database.write() as connection:
            found = connection.execute(select(api_keys).where(api_keys.c.key_id == key_id)).first()
            if found is None:
                return None
            old = _key(found)
            if (state := old.state(now_s)) != "active":
                raise KeyGoneError(f"the key {key_id} is {state}: make a new one with `conclave keys create`")
            if old.successor is not None and expires_in_s is None:
                raise KeyGoneError(
                    f"the key {key_id} was rotated already: rotate its successor {old.successor}, or give --expires"
                )
            life_s = old.expires_at_s - old.created_at_s if old.expires_at_s is not None else None
            life_s = life_s if expires_in_s is None else expires_in_s
            new_id, token = new_token(random_bytes)
            new = replace(
                old,
                key_id=new_id,
                digest=digest_of(token, pepper),
                created_at_s=now_s,
                expires_at_s=None if life_s is None else now_s + life_s,
                successor=None,
            )
            ends_s = min(now_s + overlap_s, old.expires_at_s) if old.expires_at_s is not None else now_s + overlap_s
            connection.execute(insert(api_keys).values(**_row(new)))
            ended = {"expires_at_s": ends_s, "successor": new_id}
            connection.execute(update(api_keys).where(api_keys.c.key_id == key_id).values(ended))
            note_change(connection, TOPIC)
        return Rotated(replace(old, expires_at_s=ends_s, successor=new_id), new, token)

    def revoke(self, key_id: str) -> bool:
        """Whether there is such a key; a key that is revoked already keeps its first time."""
        with self._database.write() as connection:
            found = connection.execute(select(api_keys.c.revoked_at_s).where(api_keys.c.key_id == key_id)).first()
            if found is not None and found.revoked_at_s is None:
                statement = update(api_keys).where(api_keys.c.key_id == key_id)
                connection.execute(statement.values(revoked_at_s=int(self._now())))
                note_change(connection, TOPIC)
        return found is not None

    def all(self) -> list[StoredKey]:
        """Every key ever made, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at_s, api_keys.c.key_id))
            return [_key(row) for row in rows]

    def changed_since(self, number: int | None) -> Snapshot | None:
        with self._database.read() as connection:
            now_at = change_number(connection, TOPIC)
            if now_at == number:
                return None
            return Snapshot(now_at, [_key(row) for row in connection.execute(select(api_keys))])


def _row(key: StoredKey) -> dict[str, Any]:
    experts = key.scope.experts
    return {
        "key_id": key.key_id,
        "digest": key.digest,
        "tenant": key.tenant,
        "name": key.name,
        "experts": None if experts is None else msgspec.json.encode(sorted(experts)).decode(),
        "created_at_s": key.created_at_s,
        "expires_at_s": key.expires_at_s,
        "revoked_at_s": key.revoked_at_s,
        "successor": key.successor,
        "scopes": None if key.scope.named is None else msgspec.json.encode(key.scope.named).decode(),
    }


def _key(row: Any) -> StoredKey:
    return StoredKey(
        key_id=row.key_id,
        digest=row.digest,
        tenant=row.tenant,
        name=row.name,
        scope=Scope(
            None if row.experts is None else frozenset(msgspec.json.decode(row.experts)),
            None if row.scopes is None else tuple(msgspec.json.decode(row.scopes)),
        ),
        created_at_s=row.created_at_s,
        expires_at_s=row.expires_at_s,
        revoked_at_s=row.revoked_at_s,
        successor=row.successor,
    )
