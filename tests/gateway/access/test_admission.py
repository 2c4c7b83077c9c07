from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from conclave.gateway.access.admission import Access, NoKeysError, bearer, is_loopback, require_keys_for
from conclave.gateway.access.keys import KeyRing, Snapshot, StoredKey, digest_of, new_token
from conclave.gateway.access.scope import Scope
from conclave.gateway.errors import Forbidden, RateLimited, Unauthenticated, Unavailable
from conclave.gateway.state.counters import LocalCounters

PEPPER = b"p" * 32


@dataclass(frozen=True)
class Head:
    authorization: str | None = None
    source: str = "127.0.0.1"
    origin: str | None = None
    host: str | None = "127.0.0.1:8080"


@dataclass(frozen=True)
class Limits:
    requests_per_minute: int | None = None
    deadline_s: float = 60.0


class Clock:
    s = 500.0

    def __call__(self) -> float:
        return self.s


class FixedSource:
    def __init__(self, keys: Sequence[StoredKey]) -> None:
        self._keys = keys

    def changed_since(self, number: int | None) -> Snapshot | None:
        return None if number == 1 else Snapshot(1, self._keys)


class Door:
    """An Access with one key (unless told otherwise), a clock, and a journal that can be full."""

    def __init__(
        self, *, anonymous: bool = False, keys: int = 1, limits: Limits | None = None, origins: Sequence[str] = ()
    ) -> None:
        made = [new_token() for _ in range(keys)]
        self.tokens = [token for _, token in made]
        scope = Scope(frozenset({"code"}))
        self.ring = KeyRing(
            FixedSource([StoredKey(key_id, digest_of(token, PEPPER), "acme", "n", scope, 0) for key_id, token in made]),
            PEPPER,
        )
        self.ring.refresh()
        self.clock = Clock()
        self.full = False
        self.access = Access(
            keys=self.ring,
            counters=LocalCounters(now_s=self.clock),
            limits_for=lambda _tenant: limits or Limits(),
            journal_ready=self._ready,
            allow_anonymous=anonymous,
            origins=origins,
            now_s=self.clock,
        )

    def _ready(self) -> None:
        if self.full:
            raise Unavailable("full")


async def test_a_good_key_is_granted_its_tenant_scope_and_deadline() -> None:
    door = Door()
    grant = await door.access.admit(Head(f"Bearer {door.tokens[0]}"))
    assert (grant.tenant, grant.scope.experts, grant.deadline_s) == ("acme", frozenset({"code"}), 560.0)
    assert grant.key_id == door.tokens[0].split("_")[1]
    assert grant.rate is None


@pytest.mark.parametrize("anonymous", [True, False], ids=["loopback", "public"])
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer cv_000000000000_00", "Basic dXNlcjpwYXNz", "Bearer sk-something"],
)
async def test_without_a_good_key_there_is_no_call_once_a_key_exists(
    authorization: str | None, anonymous: bool
) -> None:
    with pytest.raises(Unauthenticated):
        await Door(anonymous=anonymous).access.admit(Head(authorization))


@pytest.mark.parametrize("authorization", [None, "Bearer sk-any", "Basic x"])
async def test_on_loopback_without_any_key_everyone_is_let_in(authorization: str | None) -> None:
    """Also with a made-up key: the OpenAI clients insist on sending one."""
    grant = await Door(anonymous=True, keys=0).access.admit(Head(authorization))
    assert (grant.tenant, grant.key_id, grant.scope.experts) == ("anonymous", None, None)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, None),
        (None, "127.0.0.1:8080"),
        (None, "127.1.2.3"),
        (None, "[::1]:8080"),
        (None, "LocalHost:8080"),
        (None, "conclave.localhost:8080"),
        ("http://localhost:3000", "localhost:8080"),
        ("http://[::1]", "localhost"),
        ("https://app.localhost", "localhost"),
    ],
)
async def test_without_a_key_what_stays_on_this_machine_is_served(origin: str | None, host: str | None) -> None:
    await Door(anonymous=True, keys=0).access.admit(Head(origin=origin, host=host))


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", "127.0.0.1:8080"),
        ("http://localhost.evil.example", "127.0.0.1:8080"),
        ("http://127.0.0.1.evil.example", "127.0.0.1:8080"),
        ("null", "127.0.0.1:8080"),
        ("http://192.168.1.5:3000", "127.0.0.1:8080"),
        ("http://[", "127.0.0.1:8080"),
        (None, "evil.example:8080"),
        (None, "notlocalhost"),
        (None, "192.168.1.5"),
        (None, ""),
    ],
)
async def test_without_a_key_a_web_page_is_not_served(origin: str | None, host: str) -> None:
    """A browser sends for any page: across origins (CSRF), or to a name that now resolves to here (rebinding)."""
    with pytest.raises(Forbidden, match="conclave keys create") as refused:
        await Door(anonymous=True, keys=0).access.admit(Head(origin=origin, host=host))
    assert (refused.value.status, refused.value.code, refused.value.retry) == (403, "cross_origin", False)


async def test_a_listed_page_may_call_without_a_key_from_this_machine() -> None:
    door = Door(anonymous=True, keys=0, origins=["https://app.example"])
    assert (await door.access.admit(Head(origin="https://app.example"))).tenant == "anonymous"


@pytest.mark.parametrize(
    ("origin", "host", "origins"),
    [
        ("https://evil.example", "127.0.0.1:8080", ["https://app.example"]),
        ("https://app.example.evil.example", "127.0.0.1:8080", ["https://app.example"]),
        ("https://evil.example", "127.0.0.1:8080", ["*"]),
        ("*", "127.0.0.1:8080", ["*"]),
        ("https://app.example", "evil.example", ["https://app.example"]),
    ],
    ids=["another page", "a longer name", "any origin", "a star", "a name that was bent to here"],
)
async def test_listing_a_page_opens_the_door_to_no_other(origin: str, host: str, origins: list[str]) -> None:
    """`*` lets any page read an answer, so it must not also let any page call without a key."""
    with pytest.raises(Forbidden):
        await Door(anonymous=True, keys=0, origins=origins).access.admit(Head(origin=origin, host=host))


@pytest.mark.parametrize("source", ["203.0.113.7", "192.168.1.5", "2001:db8::1"])
async def test_who_comes_from_elsewhere_through_a_proxy_of_this_machine_needs_a_key(source: str) -> None:
    """The proxy connects from 127.0.0.1, and sends a Host of this machine's, for everybody in the world."""
    with pytest.raises(Unauthenticated) as refused:
        await Door(anonymous=True, keys=0).access.admit(Head(source=source))
    assert refused.value.code == "missing_api_key"


@pytest.mark.parametrize("source", ["127.0.0.1", "127.8.0.1", "::1", "unknown"])
async def test_who_comes_from_this_machine_does_not(source: str) -> None:
    await Door(anonymous=True, keys=0).access.admit(Head(source=source))


def test_whose_call_it_would_be_is_known_by_the_key_alone() -> None:
    door = Door()
    assert door.access.tenant_of(f"Bearer {door.tokens[0]}") == "acme"
    assert door.access.tenant_of("Bearer cv_0_0") is None
    assert door.access.tenant_of(None) is None
    assert Door(anonymous=True, keys=0).access.tenant_of("") == "anonymous"


async def test_with_a_key_it_does_not_matter_where_a_call_comes_from() -> None:
    door = Door(anonymous=True)
    head = Head(f"Bearer {door.tokens[0]}", origin="https://app.example", host="conclave.example")
    assert (await door.access.admit(head)).tenant == "acme"


async def test_one_of_our_keys_is_never_taken_as_anonymous() -> None:
    """Who sends a Conclave key expects its scope; with the wrong state folder they must hear of it."""
    _, token = new_token()
    with pytest.raises(Unauthenticated):
        await Door(anonymous=True, keys=0).access.admit(Head(f"Bearer {token}"))


async def test_without_leave_for_anonymous_callers_an_empty_ring_lets_nobody_in() -> None:
    with pytest.raises(Unauthenticated):
        await Door(anonymous=False, keys=0).access.admit(Head())


async def test_a_full_journal_comes_before_everything() -> None:
    door = Door()
    door.full = True
    for head in (Head(), Head(f"Bearer {door.tokens[0]}")):
        with pytest.raises(Unavailable):
            await door.access.admit(head)


async def test_the_rate_limit_is_the_keys_own_and_honest() -> None:
    door = Door(keys=2, limits=Limits(requests_per_minute=2))
    mine, other = (Head(f"Bearer {token}") for token in door.tokens)
    grants = [await door.access.admit(mine) for _ in range(2)]
    assert [grant.rate.remaining for grant in grants if grant.rate] == [1, 0]
    with pytest.raises(RateLimited) as refused:
        await door.access.admit(mine)
    assert refused.value.retry_after_s == pytest.approx(30)
    await door.access.admit(other)
    door.clock.s += refused.value.retry_after_s
    await door.access.admit(mine)


async def test_anonymous_callers_share_one_rate_limit() -> None:
    door = Door(anonymous=True, keys=0, limits=Limits(requests_per_minute=1))
    await door.access.admit(Head())
    with pytest.raises(RateLimited):
        await door.access.admit(Head())


async def fail_until_told_to_wait(door: Door, source: str) -> Unauthenticated:
    for _ in range(100):
        with pytest.raises(Unauthenticated) as refused:
            await door.access.admit(Head("Bearer cv_0_0", source))
        if refused.value.retry_after_s is not None:
            return refused.value
    raise AssertionError("was never told to wait")


async def test_a_source_that_keeps_failing_is_told_to_wait_still_with_a_401() -> None:
    door = Door()
    refused = await fail_until_told_to_wait(door, "192.0.2.1")
    assert refused.status == 401
    door.clock.s += refused.retry_after_s or 0
    with pytest.raises(Unauthenticated) as later:
        await door.access.admit(Head(None, "192.0.2.1"))
    assert later.value.retry_after_s is None


async def test_a_good_key_passes_from_a_source_that_keeps_failing() -> None:
    """Nobody behind the same address can lock another out."""
    door = Door()
    await fail_until_told_to_wait(door, "192.0.2.1")
    await door.access.admit(Head(f"Bearer {door.tokens[0]}", "192.0.2.1"))


async def test_addresses_of_one_ipv6_site_count_as_one_source() -> None:
    door = Door()
    await fail_until_told_to_wait(door, "2001:db8::1")
    with pytest.raises(Unauthenticated) as same:
        await door.access.admit(Head(None, "2001:db8::ffff"))
    with pytest.raises(Unauthenticated) as other:
        await door.access.admit(Head(None, "2001:db8:0:1::1"))
    assert same.value.retry_after_s is not None
    assert other.value.retry_after_s is None


async def test_no_refusal_repeats_the_key_that_was_sent() -> None:
    door = Door()
    token = new_token()[1]
    with pytest.raises(Unauthenticated) as refused:
        await door.access.admit(Head(f"Bearer {token}"))
    assert token.split("_")[1] not in refused.value.message


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Bearer", None),
        ("Basic abc", None),
        ("abc", None),
        ("", None),
        (None, None),
    ],
)
def test_the_token_of_a_header(header: str | None, token: str | None) -> None:
    assert bearer(header) == token


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104  the address that must be refused
        ("::", False),
        ("192.168.1.5", False),
        ("example.org", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_reachable_address_needs_an_active_key() -> None:
    with pytest.raises(NoKeysError, match="conclave keys create"):
        require_keys_for("0.0.0.0", Door(keys=0).ring)  # noqa: S104  the address that must be refused
    require_keys_for("0.0.0.0", Door(keys=1).ring)  # noqa: S104  as above
    require_keys_for("127.0.0.1", Door(keys=0).ring)
