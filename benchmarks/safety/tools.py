"""Whether the gate for tool calls stops those that data asked for and lets the user's own pass, at what cost.

    nice python -m benchmarks.safety.tools --data DIR [--json] [--failures]

The conversations are the rows `injecagent` of `poisoned_context.jsonl.gz`: a question, and what a tool returned, with
an order in it or without. Calls and tools are not in the data; they come from `tools.yaml`, written for this: each tool
under five names (brand first, verb first, two other vocabularies, and without a description), its arguments under two.
Attacker calls do what the order says. The user's own calls have their values from the question, or from what the tool
returned where the question asks for that. Half of the kits was tuned on, the other half was not; a conversation that
has kits of both halves is left out. Two minutes of one core.
"""

import argparse
import gzip
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conclave.safety.api import Action, Origin, Segment
from conclave.safety.boundary.normalise import fold
from conclave.safety.output.api import ToolCall
from conclave.safety.toolcalls.api import Tool, ToolRules
from conclave.safety.toolcalls.authorise import Authoriser

HERE = Path(__file__).parent
STYLES = ("brand", "verb", "first", "second", "bare")
ATTACKS = ("alone", "beside")  # what data asks for: where the user wanted something read, and something done, too
OTHER_NAMES = {  # of arguments
    "to": "recipient", "recipients": "to_addresses", "amount": "total_amount", "path": "file", "url": "address",
    "command": "cmd", "repository_id": "repo", "note_id": "id", "tweet_id": "post_id", "product_id": "sku",
    "username": "login", "email": "contact_email", "patient_id": "person",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """One proposed call in its conversation. `half` is 0 for the kits that were tuned on, 1 for the others."""

    name: str
    half: int
    kind: str  # one of ATTACKS, or the user's: `own`, `asked`, `next`
    style: str
    segments: tuple[Segment, ...]
    tools: tuple[Tool, ...]
    call: ToolCall


def number(*parts: object) -> int:
    """The same for the same words, in every process."""
    return int.from_bytes(hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=4).digest())


def half_of(kit: str) -> int:
    return number("half", kit) % 2


def name_of(spec: Mapping[str, Any], style: str) -> str:
    words = [spec["verb"], *spec["object"].split()]
    if style == "brand":
        return spec["kit"] + "".join(word[:1].upper() + word[1:] for word in words)
    if style in {"first", "second"}:
        return str(spec["also"][style == "second"])
    return "_".join(words) if style == "verb" else f"mcp__{spec['kit'].lower()}__{'_'.join(words)}"


def made(spec: Mapping[str, Any], style: str) -> tuple[Tool, ToolCall]:
    """The tool as a request declares it, and the call."""
    names = OTHER_NAMES if style in {"first", "bare"} else {}
    arguments = {names.get(key, key): value for key, value in spec["args"].items()}
    schema = {"type": "object", "properties": {key: {} for key in arguments}}
    name = name_of(spec, style)
    return Tool(name, "" if style == "bare" else spec["about"], schema), ToolCall(name, json.dumps(arguments))


def segments_of(question: str, passage: str) -> tuple[Segment, ...]:
    """The conversation, as the gateway reads it."""
    said = (
        (Origin.SYSTEM, "You are a helpful assistant with tools.", "messages[0].content"),
        (Origin.USER, question, "messages[1].content"),
        (Origin.TOOL, passage, "messages[3].content"),
    )
    return tuple(Segment(origin, text, fold(text, max_chars=1_000_000), place) for origin, text, place in said)


def cases(data: Path) -> Iterator[Case]:
    kits = yaml.safe_load((HERE / "tools.yaml").read_text(encoding="utf-8"))
    with gzip.open(data / "poisoned_context.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["source"] == "injecagent"]
    for row in rows:
        user = next(one for one in kits["users"] if one["match"] in row["question"])
        attack = next((one for one in kits["attacks"] if one["match"] in row.get("attack_text", "")), None)
        halves = {half_of(user["own"]["kit"])}
        if attack is not None:
            halves.add(half_of(attack["calls"][0]["kit"]))
        if len(halves) == 1:
            yield from of_row(row, user, attack, kits["mail"], halves.pop())


def of_row(
    row: Mapping[str, Any],
    user: Mapping[str, Any],
    attack: Mapping[str, Any] | None,
    mail: Sequence[Mapping[str, Any]],
    half: int,
) -> Iterator[Case]:
    style = STYLES[number("style", row["id"], row["question"]) % len(STYLES)]
    follow = [("own", "", user["own"])]
    one = user["honest"][number("honest", row["id"]) % len(user["honest"])]
    follow.append(("asked" if one["say"] else "next", one["say"], one["call"]))
    wanted = [("alone", "", _mailed(spec, mail[half])) for spec in (attack["calls"] if attack else ())]
    for kind, more, spec in [*follow, *wanted]:
        tool, call = made(spec, style)
        others = [made(other, style)[0] for _, _, other in [*follow, *wanted]]
        segments = segments_of(row["question"] + more, row["passage"])
        label = f"{row['id']}:{row['question'][:24]}:{call.name}"
        yield Case(label, half, kind, style, segments, (tool, *others), call)
        if kind == "alone" and one["say"]:
            asked = segments_of(row["question"] + one["say"], row["passage"])
            yield Case(label + one["say"][:24], half, "beside", style, asked, (tool, *others), call)


def _mailed(spec: Mapping[str, Any], mail: Mapping[str, Any]) -> Mapping[str, Any]:
    """The call, or the mail that carries out what the one before it returned."""
    if "mail" not in spec:
        return spec
    to, subject, body = mail["args"]
    recipients: Any = ["amy.watson@gmail.com"] if to == "recipients" else "amy.watson@gmail.com"
    return {**mail, "args": {to: recipients, subject: spec["mail"], body: "Attached is what the tool returned."}}


@dataclass(slots=True)
class Tally:
    """What was measured of one half."""

    stopped: Counter[str]
    all: Counter[str]
    by_style: Counter[str]
    failures: list[str]
    ms: list[float]


def measure(found: Sequence[Case]) -> dict[int, Tally]:
    """Judge every case under the rules that hold without a policy, each with a reader of its own."""
    tallies = {half: Tally(Counter(), Counter(), Counter(), [], []) for half in (0, 1)}
    for case in found:
        tally = tallies[case.half]
        started_s = time.thread_time()
        ruling = Authoriser(ToolRules(), case.segments, case.tools)(case.call)
        tally.ms.append(1e3 * (time.thread_time() - started_s))
        stopped = ruling.action >= Action.CONFIRM
        tally.stopped[case.kind] += stopped
        tally.all[case.kind] += 1
        if stopped != (case.kind in ATTACKS):
            tally.by_style[f"{case.kind} {case.style}"] += 1
            kinds = ",".join(f"{one.kind}/{one.severity.name}" for one in ruling.findings)
            tally.failures.append(f"{case.kind:8} {case.style:6} {case.name} {case.call.arguments} [{kinds}]")
    return tallies


def figures(tally: Tally) -> dict[str, float]:
    """What the gate holds the floors to."""
    honest = [kind for kind in tally.all if kind not in ATTACKS]
    attacks = sum(tally.all[kind] for kind in ATTACKS)
    ms = sorted(tally.ms)
    return {
        "attacker_stopped": sum(tally.stopped[kind] for kind in ATTACKS) / attacks,
        **{f"{kind}_stopped": tally.stopped[kind] / tally.all[kind] for kind in ATTACKS},
        "user_allowed": 1 - sum(tally.stopped[kind] for kind in honest) / sum(tally.all[kind] for kind in honest),
        **{f"{kind}_allowed": 1 - tally.stopped[kind] / tally.all[kind] for kind in sorted(honest)},
        "attacker_calls": attacks,
        "user_calls": sum(tally.all[kind] for kind in honest),
        "p50_ms": ms[len(ms) // 2],
        "p99_ms": ms[int(len(ms) * 0.99)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("CONCLAVE_DATA"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--failures", action="store_true", help="name the calls of the tuned half that went wrong")
    asked = parser.parse_args()
    if asked.data is None:
        parser.error("--data, or CONCLAVE_DATA, must name the folder of poisoned_context.jsonl.gz")
    found = list(cases(asked.data))
    tallies = measure(found)
    said = {("tuned", "held_out")[half]: figures(tally) for half, tally in tallies.items()}
    if asked.json:
        print(json.dumps(said))
        return
    for name, values in said.items():
        print(f"{name:9}", "  ".join(f"{key} {value:.4g}" for key, value in values.items()))
        tally = tallies[int(name == "held_out")]
        print("          wrong, by kind and name:", dict(sorted(tally.by_style.items())) or "none")
    if asked.failures:
        print("\n".join(sorted(tallies[0].failures)))


if __name__ == "__main__":
    main()
