"""What the checks promise beside their cases: places, tenants' own names, streams, and time."""

import random
import time

import pytest

from conclave.safety.api import Action, Finding, Severity
from conclave.safety.output.api import Excerpt, OutputRule
from conclave.safety.output.judging import Judging
from conclave.safety.output.packages.check import DependencyCheck, PackageCheck
from conclave.safety.output.packages.ecosystems import Ecosystem
from conclave.safety.output.packages.grade import Allowed
from conclave.safety.output.packages.index import PackageIndex
from conclave.safety.output.plan import Plan
from conclave.safety.output.stream import Channel, judged

BAD = "zorosnitro"
BLOCKS = {"action": Action.BLOCK, "from_severity": Severity.HIGH}
MOST_S = 2.0  # for 64 Ki characters of the worst kind, on a busy machine; a quadratic pattern takes a minute


def said_of(check: PackageCheck | DependencyCheck, text: str, language: str = "bash") -> list[Finding]:
    return list(check.inspect(Excerpt(text, code=True, language=language)))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"pip install -U requests {BAD}==1.0 flask", BAD),
        ('pip install "reqeusts[socks]>=2"', "reqeusts"),
        ("npm i @bable/core@7", "@bable/core"),
        ("pip install zoros\u200bni\u200dtro flask", "zoros\u200bni\u200dtro"),
        ("\u200b\u200bpip install \uff5aorosnitro", "\uff5aorosnitro"),
        ('{"cmd": "cd x\\npip install zorosnitro\\n"}', BAD),
    ],
)
def test_the_span_is_the_name_as_written(packages: PackageCheck, text: str, name: str) -> None:
    found = said_of(packages, text, "" if text.startswith("{") else "bash")
    assert [text[one.start : one.end] for one in found] == [name]


def test_a_near_name_says_what_was_meant(packages: PackageCheck) -> None:
    (found,) = said_of(packages, "pip install reqeusts")
    assert found.instead == "requests"
    assert "requests" in found.remedy


def test_redaction_puts_the_name_that_was_meant_in_its_place(packages: PackageCheck) -> None:
    plan = Plan.of([OutputRule(packages, action=Action.REDACT, from_severity=Severity.MEDIUM)])
    assert judged(plan, "```sh\npip install reqeusts\n```\n")[1] == "```sh\npip install requests\n```\n"
    assert judged(plan, f"```sh\npip install {BAD}\n```\n")[1] == "```sh\npip install [packages removed]\n```\n"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "text",
    [
        f"Do this:\n```sh\npip install {BAD}\n```\nThen go on.",
        f"First `npm i networkx`, then `pip install {BAD}`.",
        '```json\n{\n  "a": "b",\n  "networkx": "^1.0"\n}\n```',
        "```sh\npip install zoros\u200bnitro\n```",
    ],
    ids=["fence", "prose", "json", "invisible"],
)
def test_a_stream_never_shows_a_known_malicious_name_that_policy_blocks(
    packages: PackageCheck, text: str, seed: int
) -> None:
    plan = Plan.of([OutputRule(packages, **BLOCKS)])
    judging = Judging(plan.rules)
    channel = Channel(plan, judging)
    dice, shown, at = random.Random(seed), "", 0
    while at < len(text):
        size = dice.randint(1, 12)
        shown += channel.feed(text[at : at + size])
        at += size
    shown += channel.finish()
    assert channel.blocked is not None
    assert judging.verdict.findings == judged(plan, text)[0].verdict.findings
    assert not any(name in shown for name in (BAD, "networkx", "zoros\u200bnitro"))


def test_what_a_tenant_uses_is_known(index: PackageIndex) -> None:
    mine = {"acme-telemetry-core"}
    allowed = Allowed(
        names={Ecosystem.PYPI: frozenset({"acme-auth"})},
        globs={Ecosystem.NPM: ("@acme/*",)},
        locked={Ecosystem.PYPI: frozenset(mine), Ecosystem.CARGO: frozenset({"acme-parser"})},
    )
    check = PackageCheck(index=index, allowed=allowed)
    assert (
        said_of(check, "pip install acme_auth acme.telemetry.core; npm i @acme/anything; cargo add acme_parser") == []
    )


def test_a_name_near_one_that_the_tenant_uses_is_near_also_without_a_list(index: PackageIndex) -> None:
    check = PackageCheck(index=index, allowed=Allowed(locked={Ecosystem.CARGO: frozenset({"acme-parser"})}))
    (found,) = said_of(check, "cargo add acme-praser")
    assert (found.kind, found.instead) == ("package.near", "acme-parser")


@pytest.mark.parametrize(
    ("allowed", "flagged"),
    [
        (Allowed(names={Ecosystem.PYPI: frozenset({BAD})}), False),
        (Allowed(globs={Ecosystem.PYPI: ("*",)}), True),
        (Allowed(locked={Ecosystem.PYPI: frozenset({BAD})}), True),
    ],
    ids=["said in full", "by a star", "by a lockfile"],
)
def test_only_its_name_in_full_outweighs_the_list_of_malicious_packages(
    index: PackageIndex, allowed: Allowed, *, flagged: bool
) -> None:
    """A lockfile with a malicious package in it is the accident that the list is there for."""
    assert bool(said_of(PackageCheck(index=index, allowed=allowed), f"pip install {BAD}")) is flagged


def test_an_import_is_never_more_than_unknown(dependencies: DependencyCheck) -> None:
    found = said_of(dependencies, f"import {BAD}", "python") + said_of(dependencies, "import 'networkx'", "js")
    assert [(one.kind, one.severity) for one in found] == [("package.unknown", Severity.LOW)] * 2


HOSTILE = {
    "spaces": "pip" + " " * 60_000 + "x",
    "many commands": "pip install a;" * 4_600,
    "many names": "pip install " + "a-b " * 15_000,
    "one long name": "pip install " + "a" * 60_000,
    "dots": "go get " + "a." * 30_000,
    "dashes": "pip " + "-x " * 20_000 + "install a",
    "quotes": "pip install " + "\"'" * 30_000,
    "backslashes": "{" + "\\" * 60_000,
    "brackets": "pip install a" + "[" * 60_000,
    "pairs": '"a": "' * 10_000,
    "references": "<PackageReference " * 3_600,
    "signs": "a" + "==1," * 15_000,
    "continuations": "pip install \\\n" * 5_000,
    "marks": "pip install a" + "\u0301" * 60_000,
    "zero width": "pip install a" + "\u200b" * 60_000,
    "surrogates": "pip install \ud800" * 4_000,
    "unfolding": "pip install " + "\ufdfa" * 60_000,
    "slashes": "npm i " + "@a/" * 20_000,
    "imports": "import " + "a," * 30_000,
}


@pytest.mark.parametrize("language", ["", "python", "json", "requirements"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_lines_take_bounded_time_and_raise_nothing(
    packages: PackageCheck, dependencies: DependencyCheck, name: str, language: str
) -> None:
    started_s = time.thread_time()
    for check in (packages, dependencies):
        for code in (True, False):
            check.inspect(Excerpt(HOSTILE[name], code=code, language=language))
    assert time.thread_time() - started_s < MOST_S


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_raise_nothing(packages: PackageCheck, dependencies: DependencyCheck, seed: int) -> None:
    dice = random.Random(seed)
    words = (
        "pip install ",
        "npm i ",
        '"a": "^1"',
        "==1.0",
        "\n",
        "\\\n",
        "`",
        "import x",
        "\u200b",
        "\u0435",
        "\ud834",
        "{",
    )
    for _ in range(200):
        text = "".join(dice.choice(words) if dice.random() < 0.5 else chr(dice.randrange(0x2100)) for _ in range(60))
        for check in (packages, dependencies):
            for one in check.inspect(Excerpt(text, code=dice.random() < 0.7)):
                assert 0 <= one.start < one.end <= len(text)
