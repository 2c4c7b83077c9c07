"""Does an answer's guard say the same however the answer arrives? Random answers, checks and splits; exits 1 if not.

    python -m benchmarks.safety.stream_splits --splits 100000

For each split: findings, spans and action are those of the whole text; what a client gets is the whole text's result,
or a beginning of what stands before a span that blocks; and in prose no more than 256 characters wait. 100,000 splits
take about six minutes of one core.
"""

import itertools
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click
from tqdm import tqdm

from conclave.safety.api import Action, Finding, Severity
from conclave.safety.output.api import Excerpt, OutputRule, Unit
from conclave.safety.output.judging import Judging
from conclave.safety.output.plan import Plan
from conclave.safety.output.stream import WINDOW, Channel, judged


class FakeCheck:
    """Finds a pattern; the signs are of each kind that real checks have: in words, within them, anywhere, in blocks."""

    def __init__(self, name: str, pattern: str, triggers: Sequence[str], *, unit: Unit = "line") -> None:
        self.name = name
        self.triggers = tuple(triggers)
        self.unit: Unit = unit
        self._pattern = re.compile(pattern, re.IGNORECASE | re.DOTALL)

    def inspect(self, excerpt: Excerpt) -> Sequence[Finding]:
        return [
            Finding(self.name, f"{self.name}.found", Severity.HIGH, 1.0, "", *match.span())
            for match in itertools.islice(self._pattern.finditer(excerpt.text), 64)
        ]


class LedCheck(FakeCheck):
    """In prose it finds something only behind a lead."""

    leads = r"\b(?:pip|npm)(?:[^!-~]{1,31}install[^a-z0-9_-]|[^!-~]{32})"


CHECKS = (
    FakeCheck("package", r"(?<=install )\s*(?:\\\r?\n\s*)?[\w-]*evil[\w-]*", ["pip install", "npm install"]),
    FakeCheck("link", r"!?\[[^\]]*\]\(http[^)]*\)?|https?://bad\S*", ["http", "](", "!["]),
    FakeCheck("code", r"def bad\(\):.{0,200}?return", ["def bad"], unit="block"),
    FakeCheck("host", r"\S{0,100}\.evil\.com\S{0,300}", [".evil.com"]),
    FakeCheck("words", r"secret\s+word", [""]),
)
LED = (
    LedCheck("package", r"(?<=install )\s*(?:\\\r?\n\s*)?[\w-]*evil[\w-]*", ["pip install", "npm install"]),
    *CHECKS[1:],
)
CORPUS = (
    "run pip install evil-one now\nand pip install good\n",
    "x ![a](http://bad.com/?d=1) y https://bad.com/a z",
    "```python\nimport os\ndef bad():\n  return 3\n```\ndef bad(): return\n",
    "a\r\npip install \\\r\n evil\rb\u2028pip install evil\u0085",
    "[x pip install evil\n```\ndef bad(): return\n```\nz",
    "see [the\nlink](http://bad) ok\n\n[x]:\nhttp://bad\n",
    "g00gle.evil.com a.evil.com/xx",
    "pip\u200b in\u00adstall evil \uff50\uff49\uff50 install evil",
    "> - ```sh\n> pip install evil\n> ```\n ok",
    "````\n```\npip install evil\n````\nsecret  word",
    "~~~\nunclosed pip install evil def bad(): return",
    "<img src=\n'http://bad' \n> secret\nword",
    "\U0001f600pip install \U0001f600evil\U0001f600 secret word",
    "pip install `\nevil | \n& ok",
    "```\r\ndef bad():\r\nreturn\r\n```\r\nhttp://bad",
    "pip is; npm install-x pip\u00a0 install evil, pip install\nevil pip install  \\\nevil",
    "npm" + 40 * " " + "install evil " + 40 * "pip install good " + "pip install evil",
)
PIECES = (
    *(
        "pip install ",
        "npm install ",
        "evil",
        "evil-x ",
        "good ",
        "http://bad.com/",
        "https://fine ",
        "![",
        "a](",
        "](http",
    ),
    *(
        ")",
        "def bad():",
        " return ",
        "x.evil.com",
        "secret",
        " word",
        "\n",
        "\r\n",
        "\r",
        "\u2028",
        "```",
        "```sh\n",
        "~~~",
    ),
    *("\n```\n", "\\\n", "`\n", "<a ", ">", "[", "]:", "\u200b", "\uff50ip ", "the quick brown fox ", "\u4f60\u597d"),
    *(
        "q" * 700,
        "word " * 30,
        "x" * 140,
        "secret word " * 20,
        "> ",
        "- ",
        "    ",
        "\U0001f600",
        "e\u0301",
        "i",
        "p",
        " ",
    ),
)
ACTIONS = (Action.ANNOTATE, Action.ANNOTATE, Action.REDACT, Action.REDACT, Action.BLOCK)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a text. `stopped` is where it was blocked."""

    shown: str
    findings: tuple[Finding, ...]
    action: Action
    stopped: int | None
    held: int


def plan_of(actions: Sequence[Action], *, led: bool = False) -> Plan:
    """All the checks, each with its action; one that is allowed only observes. `led`: the first of them is."""
    checks = LED if led else CHECKS
    rules = [
        OutputRule(check, action, observe=action is Action.ALLOW) for check, action in zip(checks, actions, strict=True)
    ]
    return Plan.of(rules)


def streamed(plan: Plan, text: str, cuts: Sequence[int]) -> Result:
    """The text as it arrives in pieces."""
    judging = Judging(plan.rules)
    channel = Channel(plan, judging)
    shown, held = [], 0
    for start, end in itertools.pairwise((0, *cuts, len(text))):
        shown.append(channel.feed(text[start:end]))
        held = max(held, channel.held if channel.blocked is None else 0)
    shown.append(channel.finish())
    stopped = channel.blocked.start if channel.blocked is not None else None
    verdict = judging.verdict
    return Result("".join(shown), verdict.findings, verdict.action, stopped, held)


def expected(plan: Plan, text: str) -> Result:
    """The same of the whole text; what is shown is put together here, without the channel."""
    judging, shown = judged(plan, text)
    cuts = sorted((spot.start, spot.order, spot.end) for spot in judging.spots if spot.action is Action.REDACT)
    stopped = min((spot.start for spot in judging.spots if spot.action is Action.BLOCK), default=None)
    built: list[str] = []
    at = 0
    for start, order, end in cuts:
        if start >= at:
            built += (text[at:start], f"[{plan.rules[order].check.name} removed]")
        at = max(at, end)
    built.append(text[at:])
    if stopped is None:
        assert shown == "".join(built), "the channel cuts out something else than it found"  # noqa: S101
    return Result("".join(built), judging.verdict.findings, judging.action, stopped, 0)


def fault(plan: Plan, text: str, cuts: Sequence[int], whole: Result) -> str | None:
    """What is wrong with a split."""
    found = streamed(plan, text, cuts)
    if (found.findings, found.action, found.stopped) != (whole.findings, whole.action, whole.stopped):
        return "another verdict"
    if found.stopped is None and found.shown != whole.shown:
        return "another text"
    if found.stopped is not None and not before(plan, text, whole).startswith(found.shown):
        return "something of a blocked span was delivered"
    if not plan.holds_blocks and found.held > WINDOW:
        return f"{found.held} characters held in prose"
    return None


def before(plan: Plan, text: str, whole: Result) -> str:
    """What may be shown of a text that is blocked: all before the span, less what else was to be cut out of it."""
    cuts = [one for one in whole.findings if one.start < (whole.stopped or 0)]
    actions = {rule.check.name: rule.action for rule in plan.rules if not rule.observe}
    built: list[str] = []
    at = 0
    for one in sorted(cuts, key=lambda one: (one.start, [rule.check.name for rule in plan.rules].index(one.check))):
        if actions.get(one.check) is not Action.REDACT:
            continue
        if one.start >= at:
            built += (text[at : one.start], f"[{one.check} removed]")
        at = max(at, one.end)
    built.append(text[at : max(at, whole.stopped or 0)])
    return "".join(built)


def drawn(random_: random.Random) -> Iterator[tuple[Plan, str, list[int], Result]]:
    """Random texts, and ten splits of each."""
    while True:
        plan = plan_of(random_.choices(ACTIONS, k=len(CHECKS)), led=random_.random() < 0.5)  # noqa: PLR2004  half
        text = random_.choice(CORPUS) if random_.random() < 0.2 else ""  # noqa: PLR2004  a fifth
        text += "".join(random_.choices(PIECES, k=random_.randrange(1, 40)))
        whole = expected(plan, text)
        for _ in range(10):
            count = random_.choice((1, 2, 5, len(text) // 4, len(text)))
            yield plan, text, sorted(random_.sample(range(len(text) + 1), min(count, len(text)))), whole


@click.command(help=__doc__)
@click.option("--splits", default=2_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(splits: int, seed: int) -> None:
    blocked = 0
    splits_ = itertools.islice(drawn(random.Random(seed)), splits)  # noqa: S311  repeatable, not secret
    for plan, text, cuts, whole in tqdm(splits_, total=splits, disable=None):
        blocked += whole.stopped is not None
        if wrong := fault(plan, text, cuts, whole):
            actions = [rule.action.name for rule in plan.rules]
            click.echo(f"{wrong}: {text!r} cut at {cuts}, actions {actions}", err=True)
            sys.exit(1)
    click.echo(f"{splits} splits, {blocked} of them of a text that is blocked: the same verdict and text in all")


if __name__ == "__main__":
    main()
