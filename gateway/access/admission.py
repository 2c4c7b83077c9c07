"""(1) Who calls, may they, and until when: decided from the headers alone, before a byte of the body is read.

Scope is fixed here and nothing later widens it. It fails closed: without a journal to record the call in, or a key that
is good now, there is no call. Nothing here blocks.
"""

import ipaddress
import time
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Final, Protocol
from urllib.parse import urlsplit

import structlog

from conclave.gateway.access.keys import PREFIX, KeyRing, StoredKey
from conclave.gateway.access.scope import Grant, RateState, Scope
from conclave.gateway.access.standing import Vetting
from conclave.gateway.call import Head
from conclave.gateway.errors import Forbidden, RateLimited, Unauthenticated
from conclave.gateway.state.counters import Counters

ANONYMOUS: Final = "anonymous"  # the tenant of callers without a key
EVERYTHING: Final = Scope()
MINUTE_S: Final = 60.0
FAILURES_PER_MINUTE: Final = 30  # of one source, before it is told to wait
IPV6_SITE_BITS: Final = 64  # one customer's addresses count as one source

log = structlog.get_logger()


class NoKeysError(Exception):
    """The gateway will not start: it would be open to a network without a key. The message names the command."""


class CallLimits(Protocol):
    """What admission asks of a tenant's limits."""

    @property
    def requests_per_minute(self) -> int | None: ...
    @property
    def deadline_s(self) -> float: ...


class Access:
    """Admits a call or refuses it. `journal_ready` raises Unavailable while a call could not be recorded."""

    def __init__(  # noqa: PLR0913  the parts that it is made of, handed in by name
        self,
        *,
        keys: KeyRing,
        counters: Counters,
        limits_for: Callable[[str], CallLimits],
        journal_ready: Callable[[], None],
        allow_anonymous: bool,
        origins: Collection[str] = (),
        vetting: Vetting | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._counters = counters
        self._limits_for = limits_for
        self._journal_ready = journal_ready
        self._allow_anonymous = allow_anonymous
        self._origins = frozenset(origins) - {"*"}  # any page may read answers, but not call without a key
        self._vetting = vetting if vetting is not None else Vetting()
        self._now_s = now_s

    async def admit(self, head: Head) -> Grant:
        """Raises Unavailable, Unauthenticated, Forbidden or RateLimited."""
        self._journal_ready()
        token = bearer(head.authorization)
        if self._is_anonymous(token) and not _is_elsewhere(head.source):
            forbid_web_pages(head, self._origins)
            return await self._grant(ANONYMOUS, None, EVERYTHING)  # clients that insist on a key may send any
        key = self._keys.verify(token) if token is not None else None
        if key is None:
            raise await self._refusal(token, head.source)
        return await self._grant(key.tenant, key, key.scope)

    def tenant_of(self, authorization: str | None) -> str | None:
        """Whose call it would be; None for who is not let in. For the queue: nothing is counted and nothing granted."""
        token = bearer(authorization)
        if self._is_anonymous(token):
            return ANONYMOUS
        key = self._keys.verify(token) if token is not None else None
        return None if key is None else key.tenant

    def _is_anonymous(self, token: str | None) -> bool:
        return self._allow_anonymous and self._keys.empty and (token is None or not token.startswith(PREFIX))

    async def _grant(self, tenant: str, key: StoredKey | None, scope: Scope) -> Grant:
        limits = self._limits_for(tenant)
        key_id = None if key is None else key.key_id
        door = self._vetting.at_door(tenant, key_id)
        rate = None
        allowed = [one for one in (limits.requests_per_minute, door.requests_per_minute) if one is not None]
        if allowed:
            rate = await self._take(min(allowed), f"requests:{key_id or ANONYMOUS}")
        until_s = self._now_s() + limits.deadline_s
        return Grant(tenant, key_id, scope, until_s, rate, standing=door.trust, imposed=door.imposed)

    async def _take(self, limit: int, name: str) -> RateState:
        taken = await self._counters.take(name, limit=limit, period_s=MINUTE_S)
        if not taken.allowed:
            raise RateLimited(
                f"more than {limit} requests a minute; the next is allowed in {taken.retry_after_s:.1f} s",
                retry_after_s=taken.retry_after_s,
            )
        return RateState(limit, taken.remaining, taken.reset_s)

    async def _refusal(self, token: str | None, source: str) -> Unauthenticated:
        """Why not, as much as a stranger may know; a source that keeps failing is told to wait, still with a 401.

        A good key passes at any time, so nobody behind the same address can lock another out; what bounds guessing is
        the length of the secret.
        """
        taken = await self._counters.take(f"failures:{_site(source)}", limit=FAILURES_PER_MINUTE, period_s=MINUTE_S)
        if not taken.allowed:
            wait_s = taken.retry_after_s
            return Unauthenticated(f"too many failed attempts; wait {wait_s:.1f} s", retry_after_s=wait_s)
        if taken.remaining == 0:
            log.warning("access.keeps_failing", source=source, per_minute=FAILURES_PER_MINUTE)
        if token is None:
            return Unauthenticated("an API key is needed: send `Authorization: Bearer cv_...`", code="missing_api_key")
        return Unauthenticated("this API key is unknown, expired or revoked")


def bearer(authorization: str | None) -> str | None:
    """The token of an `Authorization: Bearer` header; None if there is no such thing."""
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    return token if token and scheme.lower() == "bearer" else None


def forbid_web_pages(head: Head, origins: Collection[str] = ()) -> None:
    """Raises Forbidden for what a page out of the web may have made a browser of this machine send.

    A page of another origin (CSRF) is named in `Origin`, one that has its name resolve to 127.0.0.1 (DNS rebinding) in
    `Host`. Programs send no `Origin`, and HTTP/1.0 may come without `Host`. Pages of `origins` were allowed by name.
    """
    from_page = head.origin is not None and head.origin not in origins and not _is_own(head.origin.partition("//")[2])
    if from_page or (head.host is not None and not _is_own(head.host)):
        raise Forbidden(
            "without an API key only this machine's own programs are served, at a loopback address: "
            "create a key (`conclave keys create`) to use it from there",
            code="cross_origin",
        )


@lru_cache(maxsize=64)  # a client sends the same with every call; to parse it takes 4 us
def _is_own(authority: str) -> bool:
    """Whether `name[:port]` names this machine and nothing else."""
    try:
        name = urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return False
    return name.endswith(".localhost") or is_loopback(name)


@lru_cache(maxsize=64)
def _is_elsewhere(source: str) -> bool:
    """Whether a proxy of this machine brings the call from another one: a stranger is then not this machine's own."""
    try:
        return not ipaddress.ip_address(source).is_loopback
    except ValueError:  # no address: a test's client, a socket file
        return False


def require_keys_for(host: str, ring: KeyRing) -> None:
    """Raises NoKeysError for an address that others can reach, while no key is active."""
    if not is_loopback(host) and not ring.has_active():
        raise NoKeysError(
            f"refusing to listen on {host} without an API key: anyone who reaches it could use your experts.\n"
            "Make a key first:  conclave keys create --name NAME\n"
            "or stay on this machine:  conclave serve --host 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. A name other than `localhost` is taken as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _site(source: str) -> str:
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv4Address):
        return source
    return str(ipaddress.ip_network((address, IPV6_SITE_BITS), strict=False))
