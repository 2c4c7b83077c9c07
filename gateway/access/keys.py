"""API keys: what one looks like, what is stored of it, and the ring that knows all of them in memory.

A key is `cv_<id>_<secret>`: 48 bits of id to find it by, 256 random bits that prove it. Stored is only a BLAKE2b
digest, keyed with a pepper that lies outside the database; it is compared in constant time. The secret is random, so
one fast hash is enough; slow hashes are for what people make up. On the way of a call nothing touches the database.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import structlog

from conclave.gateway.access.scope import Scope
from conclave.gateway.state.apart import apart

PREFIX: Final = "cv_"
ID_BYTES: Final = 6
SECRET_BYTES: Final = 32
PEPPER_FILE: Final = Path("keys/api_key_pepper")  # under the state folder
PEPPER_BYTES: Final = 32
MAX_TOKEN_CHARS: Final = 200  # a longer one is no key of ours, and not worth hashing
LATE_S: Final = 10.0  # a refresh that takes longer is trouble: connecting may take 5 s

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is stored. Times are seconds since the epoch; `digest` is hex."""

    key_id: str
    digest: str
    tenant: str
    name: str
    scope: Scope
    created_at_s: int
    expires_at_s: int | None = None
    revoked_at_s: int | None = None
    successor: str | None = None

    def state(self, now_s: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at_s is not None:
            return "revoked"
        return "expired" if self.expires_at_s is not None and now_s >= self.expires_at_s else "active"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All keys as of a change number."""

    number: int
    keys: Sequence[StoredKey]


class KeySource(Protocol):
    def changed_since(self, number: int | None) -> Snapshot | None:
        """All keys, if anything changed since `number` (None: in any case). Blocks; cheap if nothing did."""
        ...


def new_token(random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> tuple[str, str]:
    """A new key's id, and the key itself: the only time that it is known."""
    key_id = random_bytes(ID_BYTES).hex()
    return key_id, f"{PREFIX}{key_id}_{random_bytes(SECRET_BYTES).hex()}"


def digest_of(token: str, pepper: bytes) -> str:
    """What is stored of a key: keyed BLAKE2b, 256 bits, in hex."""
    return hashlib.blake2b(token.encode(), key=pepper, digest_size=32).hexdigest()


def read_pepper(state_dir: Path, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> bytes:
    """The pepper of this state folder, made (mode 0600) if there is none. Without it the stored keys fit no longer."""
    from conclave.safety.audit.keys import keep_secret  # noqa: PLC0415  `cryptography` comes with it

    pepper = keep_secret(state_dir / PEPPER_FILE, lambda: random_bytes(PEPPER_BYTES))
    if len(pepper) != PEPPER_BYTES:
        raise ValueError(f"{state_dir / PEPPER_FILE} does not hold {PEPPER_BYTES} bytes")
    return pepper


class KeyRing:
    """All keys, in memory. Verifying is a dictionary look-up and one hash; `following` keeps it fresh off the path."""

    def __init__(
        self,
        source: KeySource,
        pepper: bytes,
        *,
        now: Callable[[], float] = time.time,
        late_s: float = LATE_S,
    ) -> None:
        self._source = source
        self._pepper = pepper
        self._now = now
        self._late_s = late_s
        self._number: int | None = None
        self._keys: Mapping[str, StoredKey] = {}
        self._trouble: str | None = None

    @property
    def empty(self) -> bool:
        """Whether no key was ever made: a revoked or expired one counts."""
        return not self._keys

    @property
    def health(self) -> str:
        """`ok`, or why the keys in memory may be out of date."""
        return self._trouble or "ok"

    def has_active(self) -> bool:
        now_s = self._now()
        return any(key.state(now_s) == "active" for key in self._keys.values())

    def verify(self, token: str) -> StoredKey | None:
        """The key, if it is one of ours and active now. Measured: 2 us."""
        if len(token) > MAX_TOKEN_CHARS or not token.startswith(PREFIX):
            return None
        key = self._keys.get(token[len(PREFIX) :].partition("_")[0])
        if key is None or not token.isascii() or not hmac.compare_digest(digest_of(token, self._pepper), key.digest):
            return None
        return key if key.state(self._now()) == "active" else None

    def refresh(self) -> None:
        """Read the keys again if they changed. Blocks."""
        snapshot = self._source.changed_since(self._number)
        if snapshot is not None:
            self._keys = {key.key_id: key for key in snapshot.keys}
            self._number = snapshot.number

    @asynccontextmanager
    async def following(self, *, every_s: float) -> AsyncIterator[None]:
        """Refresh now, then every `every_s` in a thread, until the block ends: it waits for no database then."""
        await apart(self.refresh, name="key-ring")
        task = asyncio.create_task(self._follow(every_s), name="key-ring")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _follow(self, every_s: float) -> None:
        """A database out of reach stops nothing: the keys stay as they were last read, and `health` says so."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self._refreshed()
            except Exception as error:  # noqa: BLE001  this task's edge: whatever it was, the next round tries again
                self._cannot(type(error).__name__)
            else:
                if self._trouble is not None:
                    log.info("keys.refreshed_again")
                self._trouble = None

    async def _refreshed(self) -> None:
        """One refresh in a thread. A database that does not answer is said, and still waited for: one at a time."""
        look = asyncio.create_task(apart(self.refresh, name="key-ring"))
        try:
            if not (await asyncio.wait({look}, timeout=self._late_s))[0]:
                self._cannot("no answer")
            await look
        finally:
            look.cancel()

    def _cannot(self, error: str) -> None:
        if self._trouble is None:
            log.warning("keys.refresh_failed", error=error)
        self._trouble = "the keys cannot be read; serving with those read last"
