"""The chat-shaped half of the training data: prompts as people type them, from our own templates and slots.

The public benchmarks have one shape a category, and real prompts have another. Templates (`templates/*.yaml`) give
requests, pasted code and errors, drafts to edit, texts to read, role-play, follow-ups, examination questions in many
layouts, long reference material, many languages; every category has every shape, so that a shape decides nothing.
`vary` wraps, misspells, lower-cases and cuts them. Everything is drawn from one seed: the same call, the same rows.

Syntax of a template: `{a|b|}` is one of its alternatives, `<name>` a value of that slot (values may use slots too) and
`<name1>` one value for the whole text. A list may be a block of lines: `\\n` in it is a line break, `## ` a heading
for the reader. An examination item is `question || right ; wrong ; wrong`. `<anytopic>`, `<anyfact>`, `<anytext>` and
`<longtext>` come from all categories: what is to be read, translated or told in a story says nothing of the category.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from conclave.router.train.rows import Row
from conclave.router.train.vary import disturb

TEMPLATES: Final = Path(__file__).parent / "templates"
SOURCE: Final = "conclave_chat"  # one source for all shapes: a category's weight does not grow with their number
NOISE_SOURCE: Final = "conclave_noise"
PROMPTS_PER_CATEGORY: Final = 2000
NOISE_TEXTS: Final = 250  # each once under every label: what says nothing must decide nothing
ASK_SHARE: Final = 0.20  # of a category's prompts, if it has many topics
MANY_TOPICS: Final = 150  # with fewer it asks less, and so repeats itself no more
EXAM_SHARE: Final = 0.18  # if it has many examination items
MANY_ITEMS: Final = 25
PROBE_SHARE: Final = 0.08  # if it has facts
REFERENCE_SHARE: Final = 0.05  # stand behind or before pages of material
DIALOGUE_SHARE: Final = 0.05  # follow an earlier question and its answer
WRAP_SHARE: Final = 0.25
DISTURB_SHARE: Final = 0.40
REPEAT_SHARE: Final = 0.25  # of the noise is one character again and again
DEPTH: Final = 6  # slots inside slots
POOL: Final = 600  # texts of several facts, drawn before the prompts
TEXT_FACTS: Final = (2, 6)
LONG_FACTS: Final = (8, 30)  # 30 facts are about 4,000 characters
FEW_OPTIONS: Final = 4  # yes and no stay alone
MORE_OPTIONS: Final = 0.2  # of the examination items get options of their neighbours, up to ten

_CHOICE: Final = re.compile(r"\{([^{}|]*\|[^{}]*)\}")  # braces without a bar are text: LaTeX, sets, JSON
_SLOT: Final = re.compile(r"<([a-z]+)(\d?)>")
_BETWEEN: Final = "\x1f"  # between question and options while slots are filled
_KEYS: Final = "abcdefghijklmnopqrstuvwxyz0123456789 \t.,;:!?-_/\\+=*#@%&()[]{}<>|~^`'\""
_NOISES: Final = (
    _KEYS,
    "abcdef0123456789",
    "0123456789",
    " \n\t?.!",
    "".join(map(chr, range(256))),  # what a binary file looks like, read as Latin-1
    "\x00\x01\x02\x03\x07\x1b\x7f[0m\ufffd",
)
Lines = list[str] | str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a category; several files of one category are joined."""

    category: str
    templates: Lines = ""
    slots: dict[str, Lines] = {}
    topic: Lines = ""
    facts: Lines = ""
    exam: Lines = ""
    probed: bool = True  # whether a bare statement from `facts` belongs to the category
    shared: bool = True  # whether other categories may read, translate or retell the facts


class _FramesFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ask: Lines
    probe: Lines
    exam: Lines
    reference: Lines
    dialogue: Lines
    wrap: Lines
    slots: dict[str, Lines]


@dataclass(frozen=True, slots=True)
class Theme:
    """One category: its topics, facts and examination items for the shared frames, its own slots and templates."""

    category: str
    templates: list[str]
    slots: dict[str, list[str]]
    topic: list[str]
    facts: list[str]
    exam: list[str]
    probed: bool
    shared: bool


@dataclass(frozen=True, slots=True)
class Frames:
    """What all categories share: ways to ask about a topic, to probe a fact, to lay out an examination item,
    to put material or an earlier turn before a request, to wrap it; and the slots everybody may use."""

    ask: list[str]
    probe: list[str]
    exam: list[str]
    reference: list[str]
    dialogue: list[str]
    wrap: list[str]
    slots: dict[str, list[str]]


def read_themes() -> list[Theme]:
    """All categories by name, each joined from its files; raises msgspec.ValidationError for a malformed one."""
    files = [
        msgspec.yaml.decode(path.read_bytes(), type=_File)
        for path in sorted(TEMPLATES.glob("*.yaml"))
        if path.name != "frames.yaml"
    ]
    return [_join([file for file in files if file.category == name]) for name in sorted({f.category for f in files})]


def read_frames() -> Frames:
    """What all categories share."""
    file = msgspec.yaml.decode((TEMPLATES / "frames.yaml").read_bytes(), type=_FramesFile)
    return Frames(
        ask=lines(file.ask),
        probe=lines(file.probe),
        exam=lines(file.exam),
        reference=lines(file.reference),
        dialogue=lines(file.dialogue),
        wrap=lines(file.wrap),
        slots={name: lines(values) for name, values in file.slots.items()},
    )


def lines(given: Lines) -> list[str]:
    """The items of a list, or of a block with one item a line."""
    if not isinstance(given, str):
        return given
    held = (line.strip() for line in given.splitlines())
    return [line.replace("\\n", "\n") for line in held if line and not line.startswith("## ")]


def chat_rows(seed: int, prompts_per_category: int = PROMPTS_PER_CATEGORY) -> Iterator[Row]:
    """Rows for all categories, and texts of noise under every label."""
    frames, themes = read_frames(), read_themes()
    shared = {**frames.slots, **_pools(themes, Random(f"{seed}/pools"))}  # noqa: S311  a seeded draw, not a secret
    for theme in themes:
        draw = Random(f"{seed}/{theme.category}")  # noqa: S311
        for _ in range(prompts_per_category):
            yield Row(_prompt(theme, frames, shared, draw), theme.category, SOURCE)
    draw = Random(f"{seed}/noise")  # noqa: S311
    for _ in range(NOISE_TEXTS * prompts_per_category // PROMPTS_PER_CATEGORY):
        text = noise(draw)
        for theme in themes:
            yield Row(text, theme.category, NOISE_SOURCE)


def noise(draw: Random) -> str:
    """A text without meaning: nothing, blanks, one character, repetition, digits, binary-like."""
    size = draw.choice((0, 1, 1, 2, 4, 8, 20, 60, 200, 600, 2000, 4000, 4000))
    alphabet = draw.choice(_NOISES)
    if draw.random() < REPEAT_SHARE:
        return draw.choice(alphabet) * size
    return "".join(draw.choices(alphabet, k=size))


def fill(template: str, slots: Mapping[str, Sequence[str]], draw: Random) -> str:
    """One text from a template; `<word>` that names no slot stays as it is."""
    text = template
    while match := _CHOICE.search(text):  # the innermost alternatives first
        text = text[: match.start()] + draw.choice(match[1].split("|")) + text[match.end() :]
    kept: dict[str, str] = {}

    def value(match: re.Match[str]) -> str:
        values = slots.get(match[1])
        if not values:
            return match[0]
        if not match[2]:
            return draw.choice(values)
        if match[0] not in kept:
            kept[match[0]] = draw.choice([one for one in values if one not in kept.values()] or values)
        return kept[match[0]]

    for _ in range(DEPTH):
        filled = _SLOT.sub(value, text)
        if filled == text:
            break
        text = filled
    return text


def options(answers: Sequence[str], neighbours: Sequence[str], draw: Random) -> list[str]:
    """The options of an examination item in a drawn order, sometimes with some of its neighbours, up to ten."""
    found = list(answers)
    if len(found) >= FEW_OPTIONS and draw.random() < MORE_OPTIONS:
        others = (
            answer for other in draw.sample(neighbours, k=min(3, len(neighbours))) for answer in options_of(other)
        )
        found += [answer for answer in others if answer not in found][: 10 - len(found)]
    return draw.sample(found, k=len(found))


def options_of(item: str) -> list[str]:
    """The options of an examination item, the right one first."""
    return [answer for answer in item.partition(" || ")[2].split(" ; ") if answer]


def _join(files: Sequence[_File]) -> Theme:
    slots: dict[str, list[str]] = {}
    for file in files:
        for name, values in file.slots.items():
            slots.setdefault(name, []).extend(lines(values))
    return Theme(
        category=files[0].category,
        templates=[line for file in files for line in lines(file.templates)],
        slots=slots,
        topic=[line for file in files for line in lines(file.topic)],
        facts=[line for file in files for line in lines(file.facts)],
        exam=[line for file in files for line in lines(file.exam)],
        probed=all(file.probed for file in files),
        shared=all(file.shared for file in files),
    )


def _pools(themes: Sequence[Theme], draw: Random) -> dict[str, list[str]]:
    """What comes from all categories, each with the same share."""
    told = [theme for theme in themes if theme.facts and theme.shared]
    asked = [theme for theme in themes if theme.topic]
    return {
        "anytopic": [draw.choice(draw.choice(asked).topic) for _ in range(2 * POOL)],
        "anyfact": [draw.choice(draw.choice(told).facts) for _ in range(2 * POOL)],
        "anytext": [_text(draw.choice(told).facts, TEXT_FACTS, draw) for _ in range(POOL)],
        "longtext": [_text(draw.choice(told).facts, LONG_FACTS, draw) for _ in range(POOL)],
    }


def _text(facts: Sequence[str], size: tuple[int, int], draw: Random) -> str:
    chosen = draw.sample(facts, k=min(len(facts), draw.randint(*size)))
    return "".join(fact + draw.choice((" ", " ", " ", "\n", "\n\n")) for fact in chosen).rstrip()


def _prompt(theme: Theme, frames: Frames, shared: Mapping[str, Sequence[str]], draw: Random) -> str:
    slots = {**shared, **theme.slots, "topic": theme.topic, "fact": theme.facts}
    text = _request(theme, frames, slots, draw)
    kind = draw.random()
    if theme.facts and kind < REFERENCE_SHARE:
        pages = fill(_text(theme.facts, draw.choice((TEXT_FACTS, LONG_FACTS)), draw), slots, draw)
        text = _around(draw.choice(frames.reference), {"pages": pages, "request": text}, slots, draw)
    elif theme.facts and kind < REFERENCE_SHARE + DIALOGUE_SHARE:
        earlier = _request(theme, frames, slots, draw)
        answer = fill(_text(theme.facts, TEXT_FACTS, draw), slots, draw)
        parts = {"earlier": earlier, "answer": answer, "request": text}
        text = _around(draw.choice(frames.dialogue), parts, slots, draw)
    if draw.random() < WRAP_SHARE:
        text = _around(draw.choice(frames.wrap), {"request": text}, slots, draw)
    return disturb(text, draw) if draw.random() < DISTURB_SHARE else text


def _request(theme: Theme, frames: Frames, slots: Mapping[str, Sequence[str]], draw: Random) -> str:
    kind = draw.random()
    asks = ASK_SHARE * min(1.0, len(theme.topic) / MANY_TOPICS)
    if kind < asks:
        return fill(draw.choice(frames.ask), slots, draw)
    exams = asks + EXAM_SHARE * min(1.0, len(theme.exam) / MANY_ITEMS)
    if kind < exams:
        return _exam(theme, frames, slots, draw)
    if theme.facts and theme.probed and kind < exams + PROBE_SHARE:
        return fill(draw.choice(frames.probe), slots, draw)
    return fill(draw.choice(theme.templates), slots, draw)


def _exam(theme: Theme, frames: Frames, slots: Mapping[str, Sequence[str]], draw: Random) -> str:
    item = draw.choice(theme.exam)
    chosen = [item.partition(" || ")[0], *options(options_of(item), theme.exam, draw)]
    question, *answers = fill(_BETWEEN.join(chosen), slots, draw).split(_BETWEEN)
    listed = draw.choice(("\n", "\n", "\n", "\n\n", " ")).join(
        mark + answer for mark, answer in zip(draw.choice(_MARKS), answers, strict=False)
    )
    return _around(draw.choice(frames.exam), {"question": question, "options": listed}, slots, draw)


def _around(frame: str, parts: Mapping[str, str], slots: Mapping[str, Sequence[str]], draw: Random) -> str:
    """A frame round finished texts, whose own marks stay as they are."""
    framed = fill(frame, {name: values for name, values in slots.items() if name not in parts}, draw)
    return _SLOT.sub(lambda mark: parts.get(mark[1], mark[0]), framed)


_MARKS: Final = (
    tuple(f"{letter}. " for letter in "ABCDEFGHIJ"),
    tuple(f"{letter}. " for letter in "ABCDEFGHIJ"),
    tuple(f"({letter}) " for letter in "ABCDEFGHIJ"),
    tuple(f"{letter}) " for letter in "ABCDEFGHIJ"),
    tuple(f"{letter}) " for letter in "abcdefghij"),
    tuple(f"{number}. " for number in range(1, 11)),
    tuple(f"{number}) " for number in range(1, 11)),
    ("- ",) * 10,
    tuple(f"{letter}: " for letter in "ABCDEFGHIJ"),
    ("",) * 10,
)
