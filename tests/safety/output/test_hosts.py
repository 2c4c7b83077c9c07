"""Hosts: whose a name is, what it pretends to be, and numbers in every notation."""

import pytest

from conclave.safety.api import Severity
from conclave.safety.output.hosts import Hosts, registrable
from conclave.safety.output.numbers import number_of
from conclave.safety.output.spelling import Neighbours, distance, skeleton

HOSTS = Hosts()


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("a.b.example.co.uk", "example.co.uk"),
        ("x.github.io", "x.github.io"),
        ("co.uk", ""),
        ("os.path", ""),
        ("a.b.nordwind.org", "nordwind.org"),
    ],
)
def test_the_part_that_somebody_registered_is_known_offline(name: str, domain: str) -> None:
    assert registrable(name) == domain


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("api.opena1.com", "openai.com"),
        ("githud.com", "github.com"),
        ("goolge.com", "google.com"),
        ("paypal-login.com", "paypal.com"),
        ("openaiapi.net", "openai.com"),
        ("github.com.x-host.io", "github.com"),
        ("git-hub.com", "github.com"),
        ("\u0440\u0430ypal.com", "paypal.com"),
        ("xn--pypal-4ve.com", "paypal.com"),
        ("anthropic.dev", "anthropic.com"),
        ("rnicrosoft.com", "microsoft.com"),
    ],
)
def test_a_name_that_pretends_is_found_with_what_it_pretends_to_be(name: str, like: str) -> None:
    host = HOSTS.judge(name)
    assert (host.kind, host.like, host.severity) == ("lookalike", like, Severity.HIGH)


@pytest.mark.parametrize(
    "name",
    [
        "openai.com",
        "api.github.com",
        "google.de",
        "amazon.co.uk",
        "finance.com",
        "email.com",
        "query.com",
        "strips.com",
        "docket.com",
        "cython.org",
        "numpy.org",
        "gitea.com",
        "münchen.de",
        "nordwind-bank.org",
        "github.mycompany.io",
        "openapis.org",
        "kubuntu.org",
        "spotify.com",
    ],
)
def test_honest_names_are_no_lookalikes(name: str) -> None:
    assert HOSTS.judge(name).kind == ""


@pytest.mark.parametrize(
    "name", ["localhost", "db", "x.local", "a.svc.cluster.local", "api.example.com", "{host}", "YOUR_HOST", ""]
)
def test_names_that_nobody_else_has_are_reserved(name: str) -> None:
    assert HOSTS.judge(name).reserved


@pytest.mark.parametrize(
    ("host", "private", "hidden"),
    [
        ("185.220.101.44", False, False),
        ("10.0.0.1", True, False),
        ("127.0.0.1", True, False),
        ("203.0.113.9", True, False),
        ("3627734734", False, True),
        ("0xb9dc652c", False, True),
        ("0xB9.0xDC.0x65.0x2C".lower(), False, True),
        ("0271.0334.0145.054", False, True),
        ("2130706433", True, True),
        ("[2a03:2880:f12f:83:face:b00c:0:25de]", False, False),
        ("[::1]", True, False),
        ("[::ffff:185.220.101.44]", False, True),
    ],
)
def test_numbers_are_read_as_programs_read_them(host: str, *, private: bool, hidden: bool) -> None:
    number = number_of(host)
    assert number is not None
    assert (number.private, number.hidden) == (private, hidden)


@pytest.mark.parametrize("host", ["1.2.3", "8080", "256.1.1.1", "0x", "a.b", "1.2.3.4.5", "[zz::1]", "9" * 60])
def test_what_is_no_address_is_none(host: str) -> None:
    assert number_of(host) is None or host == "0x"


def test_neighbours_are_those_within_a_names_slips() -> None:
    near = Neighbours(["github", "cloudflare", "pypi"])
    assert [near.of(name) for name in ("githbu", "githhub", "gtub", "cluodfare", "pypj", "github")] == [
        "github", "github", "", "cloudflare", "", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "steps"), [("ab", "ba", 1), ("abc", "abc", 0), ("abc", "ac", 1), ("abcd", "badc", 2), ("a", "abcd", 3)]
)
def test_the_distance_counts_a_swap_as_one(a: str, b: str, steps: int) -> None:
    assert distance(a, b, 2) == distance(b, a, 2) == steps


def test_signs_that_look_alike_have_one_shape() -> None:
    assert skeleton("g00gle") == skeleton("google")
    assert skeleton("rnicrosoft") == skeleton("microsoft")
    assert skeleton("paypal") != skeleton("paypol")
