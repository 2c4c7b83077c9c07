"""Which descriptions of tools are taken for poisoned: of honest ones as few as may be, of poisoned ones how many.

    nice python -m benchmarks.safety.descriptions [--data DIR] [--package NAME] [--cost] [--json] [--failures]

`descriptions.yaml` has both, in kits: those of `tune` were looked at while the signs were written, `held` were then
tried once and mended, and so was `last`, which was written to get past the signs. `tools.yaml` has the honest ones of
the gate for tool calls. From `--data` come descriptions by others: `tools_catalog_metatool.jsonl.gz` as they are, and
with an order of `poisoned_context.jsonl.gz` behind them, of which the learned detector has seen most in training.
`--package` reads the docstrings of an installed package's classes, which are API documentation by others. Beside each
row: what `embedded` alone says at its own threshold. A minute of one core. `--cost` is what a list of 40 tools with 321
texts costs in CPU, under the default checks: read, and looked at for the first time and again with a new question.
"""

import argparse
import ast
import gzip
import importlib.util
import inspect
import json
import random
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import yaml

from conclave.gateway.call import ModelRequest
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.screening import maker
from conclave.router.api import Classification
from conclave.router.encoder import ARTIFACTS, ENCODER_FILES, Tokens
from conclave.safety.detect.described import told
from conclave.safety.detect.learned import EMBEDDED, Heads

HERE = Path(__file__).parent
ABOUT = re.compile(r'about: "([^"]+)"')
SEED = 1
TOOLS = 40
AGAIN = 40


@dataclass(frozen=True, slots=True)
class Texts:
    """Descriptions of one kind; `half` names where they are from."""

    half: str
    poisoned: bool
    texts: Sequence[str]


def shipped() -> Iterator[Texts]:
    """What stands in this folder."""
    halves: dict[str, dict[str, dict[str, list[str]]]] = yaml.safe_load((HERE / "descriptions.yaml").read_bytes())
    for half, kinds in halves.items():
        for kind, kits in kinds.items():
            yield Texts(half, kind == "poisoned", [text for kit in kits.values() for text in kit])
    tools = (HERE / "tools.yaml").read_text(encoding="utf-8")
    yield Texts("tools.yaml", False, sorted(set(ABOUT.findall(tools))))


def by_others(data: Path) -> Iterator[Texts]:
    """Descriptions of a catalogue, and the same with orders of others behind them."""
    honest = [row["description"] for row in rows(data / "tools_catalog_metatool.jsonl.gz")]
    yield Texts("metatool", False, honest)
    orders: dict[str, set[str]] = {}
    for row in rows(data / "poisoned_context.jsonl.gz"):
        if row["label"] == 1 and row.get("attack_text"):
            orders.setdefault(row["source"], set()).add(row["attack_text"])
    dealt = random.Random(SEED)  # noqa: S311  no secret
    for source, said in orders.items():
        texts = [f"{dealt.choice(honest).rstrip('.')}. {order}" for order in sorted(said)]
        yield Texts(f"metatool + {source}", True, texts)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def documented(package: str) -> Texts:
    """The strings that stand as documentation in a package's classes."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"there is no package {package!r} here")
    texts: set[str] = set()
    for path in Path(found.submodule_search_locations[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                texts |= {
                    inspect.cleandoc(one.value.value)
                    for one in node.body
                    if isinstance(one, ast.Expr)
                    and isinstance(one.value, ast.Constant)
                    and isinstance(one.value.value, str)
                }
    return Texts(f"docstrings of {package}", False, sorted(texts - {""}))


def measured(heads: Heads, texts: Texts) -> dict[str, Any]:
    """How many of them are found, and which are judged wrongly."""

    def score(text: str) -> float:
        return heads.scores(text)[EMBEDDED]

    hits = [told(text, score) for text in texts.texts]
    alone = sum(score(text) >= heads.threshold(EMBEDDED) for text in texts.texts)
    wrong = [
        {"text": text, "weight": round(hit.weight, 2), "signs": hit.signs}
        for text, hit in zip(texts.texts, hits, strict=True)
        if hit.is_order != texts.poisoned
    ]
    return {
        "from": texts.half,
        "poisoned": texts.poisoned,
        "texts": len(texts.texts),
        "found": sum(hit.is_order for hit in hits),
        "embedded_alone": alone,
        "wrong": wrong,
    }


def cost() -> str:
    """Milliseconds to read and to look at a list of tools, when it comes first and again."""
    honest = cycle([text for one in shipped() if not one.poisoned for text in one.texts])
    tools = [_tool(number, honest) for number in range(TOOLS)]
    checks = maker(Tokens(ARTIFACTS / ENCODER_FILES[1]).ids)
    sure = Classification("math", 0.9, unsure=False, probabilities={"math": 0.9, "code": 0.1})
    version = Version(PolicyDocument(), Pool({}), classify=lambda _: sure, model_digest="d", checks=checks)
    rules = version.rules_for("t")

    def spent(question: int, offered: Sequence[Any]) -> tuple[float, float]:
        body = {"model": "auto", "messages": [{"role": "user", "content": f"What is {question}?"}], "tools": offered}
        request = ModelRequest(body, "auto", stream=False, include_usage=False, needs=frozenset())
        times = [time.process_time()]
        segments = rules.read(request)
        times.append(time.process_time())
        rules.screen(request, segments, "t")
        times.append(time.process_time())
        return 1e3 * (times[1] - times[0]), 1e3 * (times[2] - times[1])

    spent(0, tools[:1])  # detectors are loaded when they are first needed
    first = spent(1, tools)
    again = [statistics.median(row) for row in zip(*(spent(2 + at, tools) for at in range(AGAIN)), strict=True)]
    bare = statistics.median(spent(1_000 + at, [])[1] for at in range(AGAIN))
    size = len(json.dumps(tools))
    return (
        f"{size} bytes: read {first[0]:.1f} ms, looked at {first[1]:.1f} ms; "
        f"again {again[0]:.1f} and {again[1]:.1f} ms, of which the question {bare:.1f}"
    )


def _tool(number: int, texts: Iterator[str]) -> dict[str, Any]:
    properties = {f"p{at}": {"type": "string", "description": next(texts)} for at in range(6)}
    properties["p0"]["enum"] = ["a", "b", f"c{number}"]  # type: ignore[assignment]
    parameters = {"type": "object", "properties": properties, "required": ["p0"]}
    return {
        "type": "function",
        "function": {"name": f"t{number}", "description": next(texts), "parameters": parameters},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--package")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--failures", action="store_true")
    asked = parser.parse_args()
    if asked.cost:
        print(cost())
        return
    heads = Heads.load(Tokens(ARTIFACTS / ENCODER_FILES[1]).ids)
    kinds = [*shipped(), *(by_others(asked.data) if asked.data else ())]
    kinds += [documented(asked.package)] if asked.package else []
    found = [measured(heads, texts) for texts in kinds]
    if asked.json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return
    for row in found:
        share, alone = (100 * row[name] / row["texts"] for name in ("found", "embedded_alone"))
        kind = "poisoned" if row["poisoned"] else "honest"
        print(
            f"{row['from']:32} {kind:9} {row['found']:5} of {row['texts']:5} found {share:6.1f} %  alone {alone:6.1f} %"
        )
        for one in row["wrong"] if asked.failures else ():
            print(f"    {one['weight']:4} {', '.join(one['signs'])}: {' '.join(one['text'].split())[:200]}")


if __name__ == "__main__":
    main()
