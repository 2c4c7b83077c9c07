"""Words that the parsers know: modules of other names than their packages, Node's own modules, words of sentences."""

from functools import cache
from pathlib import Path
from typing import Final

import msgspec

WORDS: Final = Path(__file__).parents[2] / "rules" / "packages.json"


class Vocabulary(msgspec.Struct, frozen=True):
    """`also_used`: much used names that the source of that list leaves out, by ecosystem; `python_modules`: the package
    of a module; `prose`: what stands behind "npm install" in a sentence.
    """

    also_used: dict[str, tuple[str, ...]]
    python_modules: dict[str, str]
    node_modules: frozenset[str]
    prose: frozenset[str]


@cache
def vocabulary() -> Vocabulary:
    """The words, read once."""
    return msgspec.json.decode(WORDS.read_bytes(), type=Vocabulary)
