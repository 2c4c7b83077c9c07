"""What poisoned passages do to the answers of a running gateway, with and without hearing the expert first.

    python -m benchmarks.retrieval.poisoned [--facts 100] [--json]    15 minutes on two busy cores

A gateway of its own serves on 127.0.0.1; its library is made by `conclave knowledge add`. Each invented fact (those of
benchmarks/retrieval/context.py) has K = 5 passages in a collection, of which a share is an attacker's: of one batch, or
each from a batch of its own. Honest ones state the answer half of the time. The expert is a chameleon: a fake one on
HTTP that says what most of the passages that it is shown say, at a tie the attacker's, whatever is noted beside them.
Shown none that say anything, it says what it knows, which it does for half of the facts; of the others it says for one
half that it does not know, and guesses for the other, wrongly. Its confidences are drawn from Beta(8, 2) where it knows
or was told and from Beta(3, 4) where it does not, so they overlap. A true update is a fact that it knows otherwise, and
of which trusted passages say how it is now.

All questions are asked of each set-up: the guard off; `isolate`, the default; that with `closed_book`, whose confidence
is the geometric mean of the tokens' probabilities; and that with `abstain`. Counted are the attacker's answers, the
right ones, other wrong ones, and the calls of the expert; and of `hallucination_risk`, how often it says `known` of
facts that the expert knows, and `ignorance` of the others.
"""

import asyncio
import math
import random
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import click
import msgspec
from aiohttp import web

from benchmarks.gateway.ports import free_port
from benchmarks.retrieval.context import KNOWN, RATIOS, STATES, Fact, K, invented
from benchmarks.retrieval.through_the_door import AT_ONCE, COMMAND, GUESSES, KNOWS, PASSAGE, gateway, serving
from conclave.gateway.policy.part import CATEGORIES

FACTS: Final = 100
UPDATES: Final = "updates"
HANDS: Final = ("one", "many")  # whose batches the attacker's passages are of
UNKNOWN: Final = "That is not known to me."
GUESS: Final = "Oswin Tarble"


@dataclass(frozen=True)
class Case:
    """A collection of passages about all facts: `poisoned` of each five are the attacker's, by so many `hands`."""

    name: str
    poisoned: int = 0
    hands: str = "one"

    @property
    def is_updates(self) -> bool:
        return self.name == UPDATES


def cases() -> list[Case]:
    """Every share of poison; without any it does not matter whose hands it is in."""
    shares = [(round(ratio * K), hands) for ratio in RATIOS for hands in (HANDS if ratio else HANDS[:1])]
    return [*(Case(f"poison-{count}-{hands}", count, hands) for count, hands in shares), Case(UPDATES)]


class Chameleon:
    """The fake expert: an OpenAI-compatible server. `calls` are those of the set-up that is asked now."""

    def __init__(self, facts: Sequence[Fact], known: Collection[str], seed: int) -> None:
        self._facts = {fact.question: fact for fact in facts}
        self._known = known
        self._draw = random.Random(seed)  # noqa: S311  a draw of confidences, no secret
        self._unknown = {fact.question: self._draw.choice((UNKNOWN, GUESS)) for fact in facts}
        self.calls = 0
        self.updated = False  # what it knows is how things were

    async def answer(self, request: web.Request) -> web.Response:
        self.calls += 1
        body = await request.json()
        asked = body["messages"][-1]["content"]
        fact = self._facts[asked.rpartition("\n")[2]]
        said = Counter(value for text in PASSAGE.findall(asked) for value in (fact.right, fact.wrong) if value in text)
        knows = self.updated or fact.question in self._known
        answer = (fact.wrong if self.updated else fact.right) if knows else self._unknown[fact.question]
        if said:
            most = max(said.values())
            answer = fact.wrong if said[fact.wrong] == most else fact.right
        sure = self._draw.betavariate(*(KNOWS if knows or said else GUESSES))
        message = {"role": "assistant", "content": answer}
        choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": "x", "logprob": math.log(max(sure, 1e-6)), "top_logprobs": []}]}
        told = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return web.json_response(told | {"usage": {"prompt_tokens": len(asked) // 4, "completion_tokens": 9}})


def policies(port: int) -> dict[str, Any]:
    """The set-ups, a policy document each."""
    expert = {"model": "m", "base_url": f"http://127.0.0.1:{port}/v1", "capabilities": ["chat", "logprobs"]}
    scores = {category: {"one": {"score": 0.5, "error": 0.02, "rows": 500}} for category in CATEGORIES}
    heard = {"evidence": ["logprobs"]}
    closed = {"off": None, "isolate": None, "heard first": heard, "and abstain": heard | {"abstain": True}}
    return {
        name: {
            "experts": {"one": expert},
            "default": ["one"],
            "routing": {"scores": scores},
            "retrieval": {"mode": "always", "guard": "off" if name == "off" else "isolate", "closed_book": first},
        }
        for name, first in closed.items()
    }


def add(folder: Path, case: Case, facts: Sequence[Fact], draw: random.Random) -> None:
    """The passages of a case to the library: each batch by a command of its own."""
    batches: dict[str, dict[str, str]] = {}
    for number, fact in enumerate(facts):
        for at in range(K - case.poisoned):
            states = case.is_updates or draw.random() < STATES
            text = (fact.stating if states else fact.beside)[at]
            batches.setdefault(f"page-{at}", {})[f"{number}.md"] = text
        for at, text in enumerate(fact.poison[: case.poisoned]):
            name = f"lie-{at if case.hands == 'many' else 0}"
            batches.setdefault(name, {})[f"{number}-{at}.md"] = text
    for batch, files in batches.items():
        documents = folder / case.name / batch
        documents.mkdir(parents=True)
        for name, text in files.items():
            (documents / name).write_text(f"{text}\n")
        trust = "trusted" if case.is_updates else "normal"
        made = subprocess.run(
            [*COMMAND, "knowledge", "--state-dir", str(folder / "state"), "add", "--collection", case.name,
             "--trust", trust, str(documents)],
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if made.returncode:
            raise click.ClickException(made.stderr[-2000:])


async def ask(session: aiohttp.ClientSession, url: str, case: Case, question: str) -> tuple[str, str]:
    """What is answered, nothing where nobody answers; and the type of the risk, if that is told."""
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": question}],
        "conclave": {"retrieval": {"mode": "always", "collections": [case.name]}},
    }
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        answer = await response.json()
        if response.status == 422:  # noqa: PLR2004  it abstains
            return "", ""
        if response.status != 200:  # noqa: PLR2004  HTTP
            raise click.ClickException(f"{response.status}: {answer}")
    risk = answer["conclave"].get("hallucination_risk", {})
    return str(answer["choices"][0]["message"]["content"]), str(risk.get("type", ""))


async def measured(
    url: str, case: Case, facts: Sequence[Fact], known: Collection[str], model: Chameleon
) -> dict[str, float]:
    """All questions about one collection, some at once."""
    room = asyncio.Semaphore(AT_ONCE)
    model.calls, model.updated = 0, case.is_updates
    async with aiohttp.ClientSession() as session:

        async def one(fact: Fact) -> tuple[str, str]:
            async with room:
                return await ask(session, url, case, fact.question)

        said = await asyncio.gather(*map(one, facts))
    counts = Counter[str]()
    for fact, (answer, risk) in zip(facts, said, strict=True):
        counts["right"] += fact.right in answer
        counts["attacker's"] += fact.wrong in answer and not case.is_updates
        counts["other wrong"] += answer == GUESS or (fact.wrong in answer and case.is_updates)
        counts["none"] += not answer or answer == UNKNOWN
        counts["told"] += bool(risk)
        counts["type right"] += risk == ("known" if fact.question in known else "ignorance")
    shares = {name: counts[name] / len(facts) for name in ("attacker's", "right", "other wrong", "none")}
    if not case.is_updates and counts["told"]:
        shares["type of risk right"] = counts["type right"] / counts["told"]
    return shares | {"calls a question": model.calls / len(facts)}


async def run(count: int, seed: int, say: Callable[[str], None]) -> dict[str, float]:
    draw, port = random.Random(seed), free_port()  # noqa: S311  a draw of facts, no secret
    facts = [invented(draw) for _ in range(count)]
    known = {fact.question for fact in facts if draw.random() < KNOWN}
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="conclave-benchmark-") as name:
        folder, model = Path(name), Chameleon(facts, known, seed)
        for case in cases():
            say(f"adding {case.name}")
            await asyncio.to_thread(add, folder, case, facts, draw)
        async with serving(model.answer, port):
            for setup, policy in policies(port).items():
                with gateway(folder, policy) as url:
                    for case in cases():
                        say(f"{setup}, {case.name}")
                        rates = await measured(url, case, facts, known, model)
                        found |= {f"{case.name} | {setup} | {rate}": value for rate, value in rates.items()}
    return found


@click.command()
@click.option("--facts", "count", default=FACTS, show_default=True, type=click.IntRange(4, 10_000))
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(count: int, seed: int, *, as_json: bool) -> None:
    found = asyncio.run(run(count, seed, lambda line: click.echo(line, err=True)))
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    width = max(map(len, found))
    for name, value in found.items():
        click.echo(f"{name:{width}}  {value:.3f}")


if __name__ == "__main__":
    main()
