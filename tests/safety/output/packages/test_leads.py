"""The leads: no command that names a package in prose goes without one, and prose about tools has none."""

import re
import re._constants as sre
import re._parser as parser
from collections.abc import Iterator
from itertools import islice, product
from typing import Any

import pytest

from conclave.safety.api import Action, Severity
from conclave.safety.output.api import Excerpt, OutputRule
from conclave.safety.output.judging import Judging
from conclave.safety.output.packages import commands
from conclave.safety.output.packages.check import PackageCheck
from conclave.safety.output.packages.leads import LEADS
from conclave.safety.output.packages.reading import Line
from conclave.safety.output.packages.tools import TOOLS, Tool
from conclave.safety.output.plan import Plan
from conclave.safety.output.stream import Channel
from conclave.safety.output.triggers import LONGEST, Folded, Triggers

GAPS = (" ", "\t", "\u00a0", '", "', " \\\n  ", " `\n", 40 * " ", "\u2028", " \u200b", "&nbsp;", " <b>", "<br>")
NAMES = ("zorosnitro", "zoros.com/nitro", "zoros/nitro", "--with=zorosnitro")
LOOKED_FOR = Triggers.leading(LEADS)


def written(pattern: Any) -> Iterator[str]:
    """Texts that a pattern matches: each of its alternatives, what may be left out left out and put in."""
    parts = [list(_of(*node)) for node in pattern]
    yield from ("".join(found) for found in product(*parts))


def _of(kind: Any, of: Any) -> Iterator[str]:
    if kind is sre.LITERAL:
        yield chr(of)
    elif kind is sre.BRANCH:
        for one in of[1]:
            yield from written(one)
    elif kind is sre.SUBPATTERN:
        yield from written(of[3])
    elif kind is sre.ASSERT:
        yield " --flag"
    elif kind is sre.IN:
        (first, value), *_ = of
        yield chr(value) if first is sre.LITERAL else chr(value[0]) if first is sre.RANGE else "x"
    else:
        assert kind in {sre.MAX_REPEAT, sre.POSSESSIVE_REPEAT, sre.MIN_REPEAT}, kind
        least, _, inner = of
        if least == 0:
            yield ""
        yield from (text * max(1, least) for text in written(inner))


def heads(tool: Tool) -> list[str]:
    """How the tool may be called, with \0 where words are apart."""
    plain = tool.words.replace(r"[\s\"',\\]++", "\0")
    return list(islice(written(parser.parse(plain)), 400))


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: re.sub(r"\W+", "-", tool.words)[:40])
def test_every_command_has_a_lead_before_its_package(tool: Tool) -> None:
    named = 0
    for head, gap, name in product(heads(tool), GAPS, NAMES):
        text = f"Run {head.replace(chr(0), gap)}{gap}{name} now"
        for mention in commands.mentions(Line.of(Excerpt(text))):
            named += 1
            folded = Folded()
            folded.add(text, 0)
            place = LOOKED_FOR.find(folded, 0, len(text))
            assert place is not None, text
            assert place <= Line.of(Excerpt(text)).place(mention.start), text
    assert named > 0


@pytest.mark.parametrize(
    "text",
    ["p<b></b>ip install zoros", "pip in<i>st</i>all zoros", "&#112;ip install zoros", "pip inst&#x61;ll zoros"],
)
def test_words_that_are_parted_by_marks_are_one(text: str) -> None:
    (mention,) = commands.mentions(Line.of(Excerpt(text)))
    folded = Folded()
    folded.add(text, 0)
    place = LOOKED_FOR.find(folded, 0, len(text))
    assert place is not None
    assert place < text.index(mention.name)


PROSE = (
    "pip is the installer of Python, and npm that of Node; Docker runs containers, and you go to the docs to run them.",
    "To install it, download the archive; a pipeline then installs what the project requires, and its dependencies.",
    "In Go, goroutines get a channel. A gem is a stone, yarn a thread, a bun is baked; composers create, cargo ships.",
    "The uv index is high today; pixies, mambas and podcasts. apt: suited. brewing, hatching, I add it in.",
)


@pytest.mark.parametrize("text", PROSE)
def test_prose_about_tools_waits_for_nothing(text: str) -> None:
    plan = Plan.of([OutputRule(PackageCheck(), Action.BLOCK, from_severity=Severity.HIGH)])
    channel = Channel(plan, Judging(plan.rules))
    assert [channel.feed(letter) for letter in text] == list(text)


def test_what_follows_a_lead_waits_until_its_line_is_judged() -> None:
    plan = Plan.of([OutputRule(PackageCheck(), Action.BLOCK, from_severity=Severity.HIGH)])
    channel = Channel(plan, Judging(plan.rules))
    words = ["Then", " run", " `pip", " install", " requests", "`", " and", " go", ".\n", "Done"]
    assert [channel.feed(word) for word in words] == [
        *("Then", " run", " `pip", " install", "", "", "", ""),
        " requests` and go.\n",
        "Done",
    ]


@pytest.mark.parametrize(
    "text",
    ["pip install " * 9, "npm" + 80 * " " + "i x", "uv pip install a; go get b -x", "pip install<b>x</b> &#1; y"],
)
def test_a_lead_is_where_it_is_however_the_text_is_looked_at(text: str) -> None:
    folded = Folded()
    folded.add(text, 0)
    matches = [found for at in range(len(text)) if (found := re.compile(LEADS).match(text, at))]
    ends = sorted(found.end() - 1 for found in matches)
    assert ends == [found.end() - 1 for found in matches]
    assert max(found.end() - found.start() for found in re.finditer(LEADS, text)) <= LONGEST
    for start in range(len(text)):
        wanted = next((end for end in ends if end >= start), None)
        assert LOOKED_FOR.find(folded, start, len(text)) == wanted


def test_a_pattern_that_is_none_is_refused_with_words() -> None:
    with pytest.raises(ValueError, match="a pattern of RE2, not"):
        Triggers.leading("(")
