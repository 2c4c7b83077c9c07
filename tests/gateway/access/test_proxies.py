"""Whose address counts behind proxies: what was forged, what is near it, and what cannot be read."""

import pytest

from conclave.gateway.access.proxies import MOST_HOPS, Proxies, address

PROXY = "10.0.0.1"
CLIENT = "203.0.113.7"


def source(*values: str, peer: str = PROXY, trusted: tuple[str, ...] = ("10.0.0.0/8",), header: str = "") -> str:
    name = header or "x-forwarded-for"
    proxies = Proxies(trusted, header=name)
    return proxies.source(peer, [(b"host", b"x"), *((name.encode(), value.encode("latin-1")) for value in values)])


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((CLIENT,), CLIENT),
        ((f"{CLIENT}, 10.0.0.2, 10.9.9.9",), CLIENT),
        ((f"{CLIENT},10.0.0.2",), CLIENT),
        ((f"{CLIENT}", "10.0.0.2"), CLIENT),
        ((f"{CLIENT}:52144",), CLIENT),
        (("2001:db8::1",), "2001:db8::1"),
        (("[2001:db8::1]:443",), "2001:db8::1"),
        (("[2001:db8::1]",), "2001:db8::1"),
        (("2001:0DB8:0::0001",), "2001:db8::1"),
        (("::ffff:203.0.113.7",), CLIENT),
        (("10.0.0.3",), "10.0.0.3"),
        ((), PROXY),
        (("",), PROXY),
    ],
)
def test_the_source_is_the_nearest_address_that_is_no_proxy(values: tuple[str, ...], found: str) -> None:
    assert source(*values) == found


@pytest.mark.parametrize(
    "forged",
    ["1.1.1.1", "127.0.0.1", "10.0.0.2", "1.1.1.1, 2.2.2.2, 10.0.0.9", "unknown", "<script>", "x" * 9000, ", ,,"],
)
def test_what_the_client_itself_wrote_counts_for_nothing(forged: str) -> None:
    """The proxy appends the address that it sees; all that stands left of it is the client's story."""
    assert source(f"{forged}, {CLIENT}") == CLIENT
    assert source(forged, CLIENT) == CLIENT


def test_a_peer_that_is_not_trusted_is_the_source_whatever_it_says() -> None:
    assert source(CLIENT, peer="198.51.100.9") == "198.51.100.9"
    assert source(CLIENT, trusted=()) == PROXY


def test_a_peer_of_a_dual_stack_socket_is_the_ipv4_address_that_it_is() -> None:
    assert source(CLIENT, peer="::ffff:10.0.0.1") == CLIENT


def test_networks_may_be_ipv6() -> None:
    assert source(f"{CLIENT}, fd00::5", peer="fd00::1", trusted=("fd00::/8",)) == CLIENT
    assert source(CLIENT, peer="fe80::1", trusted=("fd00::/8",)) == "fe80::1"


@pytest.mark.parametrize(
    "unreadable",
    ["unknown", "_hidden", "1.2.3", "999.1.1.1", "1.2.3.4:http", "1.2.3.4:999999", "[::1", "[1.2.3.4]", "fe80::1%eth0"],
)
def test_what_cannot_be_read_is_laid_to_the_proxy_that_wrote_it(unreadable: str) -> None:
    assert source(f"{CLIENT}, {unreadable}, 10.0.0.2") == "10.0.0.2"


def test_more_hops_than_there_are_proxies_in_the_world_end_the_walk() -> None:
    assert source(", ".join([CLIENT] + ["10.0.0.2"] * (MOST_HOPS + 5))) == "10.0.0.2"
    assert source(", ".join([CLIENT] + ["10.0.0.2"] * (MOST_HOPS - 1))) == CLIENT


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (f"for={CLIENT}", CLIENT),
        (f"For={CLIENT};proto=https;by=10.0.0.1", CLIENT),
        ('for="[2001:db8::1]:4711"', "2001:db8::1"),
        (f'for="{CLIENT}:80"', CLIENT),
        (f"for=1.1.1.1, for={CLIENT}", CLIENT),
        (f"for={CLIENT}, for=10.0.0.2;proto=http", CLIENT),
        (f'for="1.1.1.1, for=2.2.2.2, for={CLIENT}', CLIENT),
        (f"for={CLIENT}, for=unknown, for=10.0.0.2", "10.0.0.2"),
        (f"for={CLIENT}, for=_secret", PROXY),
        (f"for={CLIENT}, proto=https", PROXY),
        (f"for={CLIENT};for=1.1.1.1", PROXY),
        (f'for="{CLIENT}', PROXY),
        ("", PROXY),
    ],
)
def test_the_forwarded_header_is_read_as_rfc_7239_writes_it(value: str, found: str) -> None:
    assert source(value, header="forwarded") == found


def test_the_header_that_the_proxies_do_not_write_is_the_clients_and_ignored() -> None:
    """nginx appends to X-Forwarded-For and hands on a Forwarded as it came."""
    proxies = Proxies(["10.0.0.0/8"])
    headers = [(b"forwarded", b"for=127.0.0.1"), (b"x-forwarded-for", CLIENT.encode())]
    assert proxies.source(PROXY, headers) == CLIENT


@pytest.mark.parametrize("told", ["127.0.0.1", "127.8.0.1", "::1", "[::1]:80", "::ffff:127.0.0.1"])
def test_loopback_in_the_word_of_another_machine_is_laid_to_that_machine(told: str) -> None:
    assert source(told) == PROXY
    assert source(f"{told}, 10.0.0.9") == "10.0.0.9"
    both = ("127.0.0.0/8", "::1/128", "10.0.0.0/8")
    assert source(f"{told}, 10.0.0.9", peer="127.0.0.1", trusted=both) == "10.0.0.9"


@pytest.mark.parametrize("told", ["127.0.0.1", "::1"])
def test_loopback_in_the_word_of_a_proxy_of_this_machine_is_this_machine(told: str) -> None:
    assert source(told, peer="127.0.0.1", trusted=("127.0.0.1", "::1")) == told
    assert source(f"{CLIENT}, {told}", peer="::1", trusted=("127.0.0.1", "::1")) == CLIENT


def test_a_peer_without_an_address_is_left_as_it_is() -> None:
    assert source(CLIENT, peer="unknown") == "unknown"


@pytest.mark.parametrize("text", ["", " ", "1.2.3.4 ", "0x7f.1", "1.2.3.4/32", "a" * 300, "::1]", "[::1]x"])
def test_what_is_no_address(text: str) -> None:
    assert address(text) is None
