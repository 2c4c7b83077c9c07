"""Words that the parsers know: modules of other names than their packages, Node's own modules, words of sentences."""

from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from conclave.safety.output.packages.ecosystems import Ecosystem

WORDS: Final = Path(__file__).parents[2] / "rules" / "packages.json"


class Vocabulary(msgspec.Struct, frozen=True):
    """`also_used`: much used names that the source of that list leaves out, by ecosystem; `much_used`: some of those of
    indexes that no source lists; `other_things`: malicious names that in a list without more mean something else (a
    package of Debian, a plain word); `python_modules`: the package of a module; `prose`: what stands behind "npm
    install" in a sentence.
    """

    also_used: dict[str, tuple[str, ...]]
    much_used: dict[Ecosystem, tuple[str, ...]]
    other_things: frozenset[str]
    python_modules: dict[str, str]
    node_modules: frozenset[str]
    prose: frozenset[str]


@cache
def vocabulary() -> Vocabulary:
    """The words, read once."""
    return msgspec.json.decode(WORDS.read_bytes(), type=Vocabulary)
