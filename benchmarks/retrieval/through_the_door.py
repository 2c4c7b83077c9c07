"""What looking up where it pays is worth through a running gateway: right answers and look-ups of auto, always, never.

    python -m benchmarks.retrieval.through_the_door [--facts 2000] [--worth 5e-5] [--json]    10 minutes on two cores

A gateway of its own serves on 127.0.0.1 with a library of invented facts, added by `conclave knowledge add`, one file
each. Its experts are one fake model on HTTP: of as many other facts of the same shape, which stand in no document, it
knows every one; of the invented ones none. It answers from the passages that it is shown if one of them names what was
asked for, else from what it knows, else it guesses, wrongly. Asked for log probabilities it is surer where it knows:
confidences are drawn from Beta(8, 2) where it does and Beta(3, 4) where it does not, so they overlap.

Each question is asked once in each mode, by `conclave.retrieval`, of two policies: `scores`, one expert, of which the
policy says that half of its answers are right; `trial`, the same expert on trial before its like, which is asked where
the first was unsure, and looked up for (`if_unsure`). The gate is the shipped one. `--worth` is the policy's
`retrieval.worth`, and may be given again: one that is picked by these figures is picked on the same data.
"""

import asyncio
import math
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp
import click
import msgspec
import yaml
from aiohttp import web

from benchmarks.gateway.ports import free_port, wait_for_port
from benchmarks.retrieval.gate import _names as names_of
from conclave.gateway.policy.part import CATEGORIES
from conclave.router.gates.retrieval import Costs, saving

Answer: TypeAlias = Callable[[web.Request], Awaitable[web.Response]]

COMMAND: Final = (sys.executable, "-m", "conclave.gateway.cli")

FACTS: Final = 2_000  # of each kind
TOKENS: Final = 1_500  # that the policy lets passages have: the cost of a look-up
AT_ONCE: Final = 16
KNOWS, GUESSES = (8, 2), (3, 4)  # of a Beta: how sure it is of an answer
MODES: Final = ("always", "never", "auto")
WORD: Final = re.compile(r"\w+")
PASSAGE: Final = re.compile(r"\[\d+\] [^\n]*\n([^\n]*)")
SHAPES: Final = (  # a question, the sentence that answers it, and what the answers are
    (
        "In which year was the lighthouse of ? built?",
        "The lighthouse of ? was built in # by the harbour board.",
        "year",
    ),
    ("Who founded the observatory of ?", "The observatory of ? was founded by # after the great flood.", "person"),
    ("Which river flows through the town of ?", "The town of ? lies on the river #, below two old mills.", "river"),
    ("How many bells hang in the tower of ?", "In the tower of ? hang # bells, cast in one summer.", "count"),
    ("What is the oldest inn of ? called?", "The oldest inn of ? is the #, by the east gate.", "inn"),
)


@dataclass(frozen=True)
class Fact:
    """A question, its answer, and the document that holds it; none for what only the expert knows."""

    name: str
    question: str
    answer: str
    sentence: str
    known: bool


def facts(count: int, seed: int) -> list[Fact]:
    """Half of them invented and to be indexed, half known; of both every shape, in one order."""
    draw = random.Random(seed)  # noqa: S311  a draw of facts, no secret
    found = []
    for number, name in enumerate(names_of(draw, 2 * count)):
        question, sentence, kind = draw.choice(SHAPES)
        answer = _answer(draw, kind)
        found.append(
            Fact(
                name,
                question.replace("?", name, 1) if question.count("?") > 1 else question.replace("?", f"{name}?"),
                answer,
                sentence.replace("?", name).replace("#", answer),
                number >= count,
            )
        )
    draw.shuffle(found)
    return found


def _answer(draw: random.Random, kind: str) -> str:
    match kind:
        case "year":
            return str(draw.randint(1400, 1950))
        case "count":
            return str(draw.randint(3, 99))
        case "person":
            return (
                f"{draw.choice(['Mira', 'Tolan', 'Edda', 'Jorik'])} {draw.choice(['Vael', 'Osten', 'Brume', 'Kerr'])}"
            )
        case "river":
            return draw.choice(["Ansel", "Morrow", "Tind", "Ebra", "Lusk", "Varn"])
        case _:
            return draw.choice(["Blue Heron", "Three Kettles", "Old Anchor", "Silver Plough"])


class Model:
    """The fake expert: an OpenAI-compatible server."""

    def __init__(self, known: list[Fact], seed: int) -> None:
        self._facts = {fact.name: fact for fact in known}
        self._draw = random.Random(seed)  # noqa: S311  a draw of confidences, no secret

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        asked = body["messages"][-1]["content"]
        question = asked.rpartition("\n")[2]
        fact = next(self._facts[word] for word in WORD.findall(question) if word in self._facts)
        told = next((one for one in PASSAGE.findall(asked) if fact.name in WORD.findall(one)), None)
        sure = self._draw.betavariate(*(KNOWS if fact.known or told else GUESSES))
        if told is not None:
            said = f"{told} [1]"
        else:
            said = fact.answer if fact.known else "It is not known to me; perhaps nobody counted."
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": said},
            "finish_reason": "stop",
        }
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": "x", "logprob": math.log(max(sure, 1e-6)), "top_logprobs": []}]}
        answer = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return web.json_response(answer | {"usage": {"prompt_tokens": len(asked) // 4, "completion_tokens": 9}})


def policies(port: int, worth: float) -> dict[str, Any]:
    """The two set-ups, a policy document each."""
    known = {"model": "m", "base_url": f"http://127.0.0.1:{port}/v1", "capabilities": ["chat", "logprobs"]}
    half = {"score": 0.5, "error": 0.02, "rows": 500}
    names = ("one", "other")
    scores = {category: dict.fromkeys(names, half) for category in CATEGORIES}
    plain = {"experts": dict.fromkeys(names, known), "default": names, "retrieval": {"tokens": TOKENS, "worth": worth}}
    cascade = {"weak": "one", "strong": "other", "below": 0.5}
    return {
        "scores": plain | {"routing": {"scores": scores}},
        "trial": plain | {"routing": {"scores": scores, "cascade": cascade}},
    }


@asynccontextmanager
async def serving(answer: Answer, port: int) -> AsyncIterator[None]:
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield
    await runner.cleanup()


@dataclass(frozen=True)
class Asked:
    """What came of one question in one mode."""

    right: bool
    known: bool
    looked: bool
    kept_away: int
    saved: float


async def ask(session: aiohttp.ClientSession, url: str, fact: Fact, mode: str) -> Asked:
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": fact.question}],
        "conclave": {"retrieval": mode},
    }
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        answer, outcome = await response.json(), response.headers.get("x-conclave-retrieval")
        if response.status != 200:  # noqa: PLR2004  HTTP
            raise click.ClickException(f"{response.status}: {answer}")
    said = answer["choices"][0]["message"]["content"].replace("[1]", "")
    told = answer["conclave"].get("retrieval", {})
    right = re.search(rf"\b{re.escape(fact.answer)}\b", said) is not None
    kept_away = len(told.get("kept_away", ()))
    looked = outcome in {"used", "empty"}
    return Asked(right, fact.known, looked, kept_away, told.get("tokens_saved", 0.0))


async def measured(url: str, all_of_them: list[Fact], mode: str) -> list[Asked]:
    """Every question in one mode, some at once."""
    room = asyncio.Semaphore(AT_ONCE)
    async with aiohttp.ClientSession() as session:

        async def one(fact: Fact) -> Asked:
            async with room:
                return await ask(session, url, fact, mode)

        return await asyncio.gather(*map(one, all_of_them))


def figures(name: str, found: dict[str, list[Asked]]) -> dict[str, float]:
    """The rates of a set-up by their names; that the tokens saved are the paper's formula is checked beside."""
    said: dict[str, float] = {}
    for mode, rows in found.items():
        unknown = [one for one in rows if not one.known]
        known = [one for one in rows if one.known]
        said[f"{name}, {mode}: right answers"] = _share(one.right for one in rows)
        said[f"{name}, {mode}: right, of the invented facts"] = _share(one.right for one in unknown)
        said[f"{name}, {mode}: right, of the known facts"] = _share(one.right for one in known)
        said[f"{name}, {mode}: looked up"] = _share(one.looked for one in rows)
        said[f"{name}, {mode}: looked up, of the invented facts"] = _share(one.looked for one in unknown)
        said[f"{name}, {mode}: looked up, of the known facts"] = _share(one.looked for one in known)
        said[f"{name}, {mode}: passages kept away, a question"] = sum(one.kept_away for one in rows) / len(rows)
    auto, always = found["auto"], found["always"]
    said[f"{name}: auto's share of always's right answers"] = sum(o.right for o in auto) / sum(o.right for o in always)
    said[f"{name}: auto's share of always's look-ups"] = sum(o.looked for o in auto) / sum(o.looked for o in always)
    saved = math.fsum(one.saved for one in auto)
    paper = saving(asked=len(auto), retrieved=sum(one.looked for one in auto), costs=Costs(context=TOKENS))
    said[f"{name}, auto: tokens saved a question"] = saved / len(auto)
    said[f"{name}, auto: that, less the formula's on the counts"] = (saved - paper) / len(auto)
    return said


def _share(values: Iterable[bool]) -> float:
    every = list(values)
    return sum(every) / len(every)


@contextmanager
def gateway(folder: Path, policy: dict[str, Any]) -> Iterator[str]:
    """`conclave serve` with this policy and the library that is in the folder; its URL."""
    port = free_port()
    server = {"port": port, "admin_port": free_port(), "state_dir": str(folder / "state"), "log_level": "warning"}
    config = folder / "conclave.yaml"
    config.write_text(yaml.safe_dump({"server": server, "policy": policy}))
    with (folder / "gateway.log").open("ab") as log:
        running = subprocess.Popen([*COMMAND, "serve", "--config", str(config)], cwd=folder, stdout=log, stderr=log)
    try:
        wait_for_port(port, within_s=60)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(30)


def add(folder: Path, told: list[Fact]) -> None:
    """The invented facts to the library, by the command: a file each, of a source and a batch as they come."""
    documents = folder / "facts"
    documents.mkdir()
    for fact in told:
        (documents / f"{fact.name.lower()}.md").write_text(f"# {fact.name}\n\n{fact.sentence}\n")
    made = subprocess.run(
        [*COMMAND, "knowledge", "--state-dir", str(folder / "state"), "add", str(documents)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        raise click.ClickException(made.stderr[-2000:])


async def run(count: int, seed: int, worths: Sequence[float], say: Callable[[str], None]) -> dict[str, float]:
    """Both set-ups, every mode; what a token is worth counts in `auto` alone."""
    all_of_them, port = facts(count, seed), free_port()
    said: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="conclave-benchmark-") as name:
        folder = Path(name)
        say("adding the facts")
        await asyncio.to_thread(add, folder, [fact for fact in all_of_them if not fact.known])
        async with serving(Model(all_of_them, seed).answer, port):
            found: dict[str, dict[str, list[Asked]]] = {}
            for worth in worths:
                for setup, policy in policies(port, worth).items():
                    rows = found.setdefault(setup, {})
                    with gateway(folder, policy) as url:
                        for mode in MODES if not rows else ("auto",):
                            say(f"{setup}, {mode}, worth {worth:g}")
                            rows[mode] = await measured(url, all_of_them, mode)
                    said |= figures(f"{setup}, worth {worth:g}", rows)
    return said


@click.command()
@click.option("--facts", "count", default=FACTS, show_default=True, type=click.IntRange(10, 100_000))
@click.option("--seed", default=0, show_default=True)
@click.option("--worth", "worths", multiple=True, type=float, default=[5e-5], show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(count: int, seed: int, worths: tuple[float, ...], *, as_json: bool) -> None:
    found = asyncio.run(run(count, seed, worths, lambda line: click.echo(line, err=True)))
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    width = max(map(len, found))
    for name, value in found.items():
        click.echo(f"{name:{width}}  {value:.4f}")


if __name__ == "__main__":
    main()
