"""Attacks and honest near-misses from our own templates: what no public file has enough of.

Templates stand in `templates/*.yaml`. `{a|b|}` is one of its alternatives, `<name>` a value of that slot; values may
use both. `⟦` and `⟧` become braces. Everything is drawn from one seed: the same call, the same texts. A template's
number decides which fold it belongs to, so that what is measured was made by templates that training had not seen.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final

import msgspec

TEMPLATES: Final = Path(__file__).parent / "templates"
DEPTH: Final = 10  # slots inside slots
TRIES: Final = 4  # draws for a new text before a template is taken as used up

_CHOICE: Final = re.compile(r"\{([^{}]*)\}")
_SLOT: Final = re.compile(r"<([a-z_]+)>")
_BLANKS: Final = re.compile(r"  +")


class Templates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file: lists of templates by kind, and the slots that they share."""

    slots: dict[str, list[str]]
    templates: list[str] = []
    hard: list[str] = []
    roleplay: list[str] = []


def read_templates(name: str) -> Templates:
    """The file of that name; raises msgspec.ValidationError for a malformed one."""
    return msgspec.yaml.decode((TEMPLATES / f"{name}.yaml").read_bytes(), type=Templates)


def fill(template: str, slots: Mapping[str, Sequence[str]], draw: Random) -> str:
    """One text from a template; `<word>` that names no slot stays as it is."""

    def value(match: re.Match[str]) -> str:
        values = slots.get(match[1])
        return draw.choice(values) if values else match[0]

    text = template
    for _ in range(DEPTH):
        before = text
        while match := _CHOICE.search(text):  # the innermost alternatives first
            text = text[: match.start()] + draw.choice(match[1].split("|")) + text[match.end() :]
        text = _SLOT.sub(value, text)
        if text == before:
            break
    text = text.replace("⟦", "{").replace("⟧", "}")
    return _BLANKS.sub(" ", text).strip()


def filled(templates: Sequence[str], slots: Mapping[str, Sequence[str]], count: int, draw: Random) -> list[str]:
    """About `count` different texts, as many from each template as it has; in the order they were drawn."""
    found: dict[str, None] = {}
    for _ in range(TRIES):
        for template in [*templates] * max(1, count // (len(templates) or 1)):
            if len(found) >= count:
                return list(found)
            if text := fill(template, slots, draw):
                found[text] = None
    return list(found)


def fold_of(name: str, folds: int) -> int:
    """The fold that a template or a source belongs to: by its words alone, so that others may come and go."""
    return Random(name).randrange(folds)  # noqa: S311  a seeded draw, not a secret
