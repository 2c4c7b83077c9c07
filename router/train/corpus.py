"""The chat-shaped half of the training data: prompts as people type them, from our own templates and slots.

The public benchmarks have one shape a category, and real prompts have another. Templates (`templates/*.yaml`) give
requests, pasted code and errors, drafts to edit, texts to read, role-play, follow-ups, many languages; `vary` wraps,
misspells, lower-cases and cuts them. Everything is drawn from one seed: the same call gives the same rows.

Syntax of a template: `{a|b|}` is one of its alternatives, `<name>` a value of that slot; values may use slots too.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from conclave.router.train.rows import Row
from conclave.router.train.vary import disturb

TEMPLATES: Final = Path(__file__).parent / "templates"
SOURCE: Final = "conclave_chat"
NOISE_SOURCE: Final = "conclave_noise"
PROMPTS_PER_CATEGORY: Final = 1300
NOISE_TEXTS: Final = 250  # each once under every label: what says nothing must decide nothing
ASK_SHARE: Final = 0.35  # of a category's prompts, if it has topics
WRAP_SHARE: Final = 0.25
DISTURB_SHARE: Final = 0.40
REPEAT_SHARE: Final = 0.25  # of the noise is one character again and again
DEPTH: Final = 6  # slots inside slots

_CHOICE: Final = re.compile(r"\{([^{}]*)\}")
_SLOT: Final = re.compile(r"<([a-z]+)>")
_KEYS: Final = "abcdefghijklmnopqrstuvwxyz0123456789 \t.,;:!?-_/\\+=*#@%&()[]{}<>|~^`'\""
_NOISES: Final = (
    _KEYS,
    "abcdef0123456789",
    "0123456789",
    " \n\t?.!",
    "".join(map(chr, range(256))),  # what a binary file looks like, read as Latin-1
    "\x00\x01\x02\x03\x07\x1b\x7f[0m\ufffd",
)


class Theme(msgspec.Struct, frozen=True):
    """One category's file: its topics for the shared questions, its own slots and templates."""

    category: str
    templates: list[str]
    slots: dict[str, list[str]] = {}
    topic: list[str] = []


class Frames(msgspec.Struct, frozen=True):
    """What all categories share."""

    ask: list[str]
    wrap: list[str]
    slots: dict[str, list[str]]


def chat_rows(seed: int, prompts_per_category: int = PROMPTS_PER_CATEGORY) -> Iterator[Row]:
    """Rows for all categories, and texts of noise under every label."""
    frames = msgspec.yaml.decode((TEMPLATES / "frames.yaml").read_bytes(), type=Frames)
    themes = [
        msgspec.yaml.decode(file.read_bytes(), type=Theme)
        for file in sorted(TEMPLATES.glob("*.yaml"))
        if file.name != "frames.yaml"
    ]
    for theme in themes:
        draw = Random(f"{seed}/{theme.category}")  # noqa: S311  a seeded draw, not a secret
        for _ in range(prompts_per_category):
            yield Row(_prompt(theme, frames, draw), theme.category, SOURCE)
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


def _prompt(theme: Theme, frames: Frames, draw: Random) -> str:
    slots = {**frames.slots, **theme.slots, "topic": theme.topic}
    asks = bool(theme.topic) and draw.random() < ASK_SHARE
    text = fill(draw.choice(frames.ask if asks else theme.templates), slots, draw)
    if draw.random() < WRAP_SHARE:
        text = draw.choice(frames.wrap).replace("<request>", text)
    return disturb(text, draw) if draw.random() < DISTURB_SHARE else text


def fill(template: str, slots: Mapping[str, Sequence[str]], draw: Random) -> str:
    """One text from a template; `<word>` that names no slot stays as it is."""
    text = template
    while match := _CHOICE.search(text):  # the innermost alternatives first
        text = text[: match.start()] + draw.choice(match[1].split("|")) + text[match.end() :]

    def value(match: re.Match[str]) -> str:
        values = slots.get(match[1])
        return draw.choice(values) if values else match[0]

    for _ in range(DEPTH):
        filled = _SLOT.sub(value, text)
        if filled == text:
            break
        text = filled
    return text
