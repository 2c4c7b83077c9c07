"""How much of an honest answer waits for its guard: chunks held and cut anew, and what the first text waits for.

    python -m benchmarks.safety.held [--answers N] [--data DIR]

Answers as models stream them, a token a chunk: prose (the language reference that comes with Python), code (modules of
its standard library, fenced), pages with commands (our own docs), and with --data web pages about anything. Held is a
chunk that lets nothing go when it comes, cut anew one that lets go something else than its own text. The first text's
wait is counted in chunks, and in CPU time of the chunks up to it against a policy that waits for nothing, in rounds
that alternate. Nothing here is ever blocked: what is found is counted, so that a loud check is seen.
"""

import gzip
import json
import random
import re
import statistics
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import click
import msgspec

from conclave.gateway.call import Chunk
from conclave.gateway.guard import Guard, NoGuard
from conclave.gateway.policy.answers import ANSWERS, AnswerCheckSettings, compiled
from conclave.safety.api import Action
from conclave.safety.output.checks import make
from conclave.safety.output.judging import Judging
from conclave.safety.output.stream import Channel

TOKEN = re.compile(
    r" ?[^\W\d_]{1,5}|[^\W\d_]{1,5}|\d{1,3}| ?[^\w\s]{1,3}|\s+|_"
)  # about 4 characters, as vocabularies have
CHARS = 4_096
FIRST_CHUNKS = 16  # more than the first text ever waits for
ROUNDS = 15
POLICIES: Mapping[str, Sequence[AnswerCheckSettings]] = {
    "all tell": [one.model_copy(update={"action": "annotate", "from_severity": "low"}) for one in ANSWERS],
    "default": ANSWERS,
    "links, shell too": [
        one.model_copy(update={"action": "redact"}) if one.check in {"links", "shell"} else one for one in ANSWERS
    ],
}


@dataclass(slots=True)
class Count:
    """Over the answers of one kind."""

    chunks: int = 0
    held: int = 0
    cut: int = 0
    most_chars: int = 0
    first: int = 0  # chunks that the first text waited for, in all answers
    cpu_s: float = 0.0
    blocked: int = 0


def answers(number: int, data: Path | None) -> dict[str, list[str]]:
    """Texts by kind, 4 KB each."""
    draw = random.Random(1)  # noqa: S311  repeatable, not secret
    library = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    docs = "\n\n".join(path.read_text() for path in sorted(Path("docs").glob("*.md")))
    found = {
        "prose": "\n\n".join(topics[name] for name in sorted(topics)),
        "code": "\n".join(path.read_text("utf-8", "replace") for path in library),
        "docs": docs,
    }
    if data is not None:
        rows = map(json.loads, gzip.decompress((data / "poisoned_context.jsonl.gz").read_bytes()).splitlines())
        found["passages"] = "\n\n".join(filter(None, ("" if row["label"] else row["passage"] for row in rows)))
    made = {}
    for kind, text in found.items():
        starts = [draw.randrange(max(1, len(text) - CHARS)) for _ in range(number)]
        parts = [text[text.find("\n", at) + 1 :][:CHARS] for at in starts]
        made[kind] = [f"```python\n{part}\n```\n" if kind == "code" else part for part in parts]
    return made


def pieces(text: str) -> list[str]:
    return TOKEN.findall(text)


def count(settings: Sequence[AnswerCheckSettings], texts: Sequence[str]) -> Count:
    plan = compiled(settings, make, canaries=(), observe=False).plan
    total = Count()
    for text in texts:
        judging = Judging(plan.rules)
        channel = Channel(plan, judging)
        shown = False
        for piece in pieces(text):
            began_s = time.process_time()
            said = channel.feed(piece)
            total.cpu_s += time.process_time() - began_s
            total.chunks += 1
            total.held += not said
            total.cut += bool(said) and said != piece
            total.most_chars = max(total.most_chars, channel.held)
            total.first += not shown and not said
            shown = shown or bool(said)
        channel.finish()
        total.blocked += judging.verdict.action >= Action.REDACT
    return total


def first_us(settings: Sequence[AnswerCheckSettings], texts: Sequence[str]) -> list[float]:
    """Of each answer, CPU time until its first text came, in us, through a guard."""
    guarding = compiled(settings, make, canaries=(), observe=False)
    return [
        1e6 * _first_s(guarding.guard([], incident="i", stream=True), chunks)
        for chunks in map(list, map(_chunks, texts))
    ]


def _first_s(guard: Guard | NoGuard, chunks: Sequence[Chunk]) -> float:
    began_s = time.process_time()
    for chunk in chunks:
        if guard.feed(chunk):
            break
    return time.process_time() - began_s


def _chunks(text: str) -> Iterator[Chunk]:
    for piece in pieces(text[:256])[:FIRST_CHUNKS]:
        choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
        yield Chunk(msgspec.json.encode({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}))


@click.command(help=__doc__)
@click.option("--answers", "number", default=200, show_default=True)
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Passages about anything, too.")
def main(number: int, data: Path | None) -> None:
    click.echo(f"{number} answers of each kind, {CHARS} characters, a token a chunk")
    click.echo(
        f"{'':9}{'':17}{'held':>8}{'cut anew':>10}{'most chars':>12}{'first waits':>13}{'us a chunk':>12}{'blocked':>9}"
    )
    for kind, texts in answers(number, data).items():
        for name, settings in POLICIES.items():
            one = count(settings, texts)
            click.echo(
                f"{kind:9}{name:17}{one.held / one.chunks:8.2%}{one.cut / one.chunks:10.2%}{one.most_chars:12}"
                f"{one.first / number:13.2f}{1e6 * one.cpu_s / one.chunks:12.1f}{one.blocked:9}"
            )
        firsts: dict[str, list[float]] = {name: [] for name in POLICIES}
        for _ in range(ROUNDS):
            for name, settings in POLICIES.items():
                firsts[name].append(statistics.median(first_us(settings, texts[:50])))
        rows = ", ".join(f"{name} {statistics.median(found):.1f}" for name, found in firsts.items())
        click.echo(f"{kind:9}CPU us to the first text, median: {rows}")


if __name__ == "__main__":
    main()
