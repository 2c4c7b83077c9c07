"""Imports of Python, JavaScript and Ruby, and which package brings a module of that name: `cv2` is opencv-python's.

A module may also be a file of one's own, so an import is never more than a hint. Pure.
"""

import re
import sys
from collections.abc import Iterator
from typing import Final

from conclave.safety.output.packages.ecosystems import Ecosystem
from conclave.safety.output.packages.mentions import Mention, Sure, Where
from conclave.safety.output.packages.reading import Line
from conclave.safety.output.packages.vocabulary import vocabulary

PYTHON: Final = frozenset({"python", "py", "python3", "ipython", "jupyter", "pycon"})
JAVASCRIPT: Final = frozenset(
    {"javascript", "js", "jsx", "typescript", "ts", "tsx", "mjs", "cjs", "vue", "svelte", "node"}
)
RUBY: Final = frozenset({"ruby", "rb"})
GO: Final = frozenset({"go", "golang"})
READ: Final = PYTHON | JAVASCRIPT | RUBY | GO
WORDS: Final = ("import", "require", "from")  # one of them is in every import
PYTHON_IMPORT: Final = re.compile(
    r"[ \t]*(?:>>>[ \t])?(?:from[ \t]+([A-Za-z_]\w*)[\w.]*[ \t]+import\b|import[ \t]+([^;#\n]+))"
)
MODULE: Final = re.compile(r"(?<=[,\s])([A-Za-z_]\w*)[\w.]*(?:[ \t]+as[ \t]+\w+)?[ \t]*(?=,|$)")
JAVASCRIPT_IMPORT: Final = re.compile(
    r"""\b(?:from|import|require)[ \t]*\(?[ \t]*["'](?:npm:)?((?:@[\w.~-]+/)?[\w][\w.~-]*)(?:/[\w./~-]*)?["']"""
)
GO_IMPORT: Final = re.compile(  # within `import ( ... )`, too
    r"""^[ \t]*(?:import[ \t]+)?(?:[\w.]+[ \t]+)?"((?:[\w-]+\.)+[a-z]+(?:/[\w.~-]+)+)"[ \t]*(?://.*)?$"""
)
RUBY_IMPORT: Final = re.compile(r"""^[ \t]*require[ \t]*\(?["']([\w-]+)(?:/[\w/-]*)?["']""")


def mentions(line: Line) -> Iterator[Mention]:
    """The packages that the line's imports stand for; what comes with the language is none."""
    text, language = line.text, line.language
    if language in PYTHON:
        yield from _python(text)
    elif language in JAVASCRIPT:
        for found in JAVASCRIPT_IMPORT.finditer(text):
            if found[1] not in vocabulary().node_modules:
                yield Mention(Ecosystem.NPM, found[1], *found.span(1), Where.IMPORT)
    elif language in GO and (found_go := GO_IMPORT.match(text)) is not None:  # an import is the module's very name
        yield Mention(Ecosystem.GO, found_go[1], *found_go.span(1), Where.MANIFEST, sure=Sure.LIKELY)
    elif language in RUBY:
        for found in RUBY_IMPORT.finditer(text):
            yield Mention(Ecosystem.RUBYGEMS, found[1], *found.span(1), Where.IMPORT)


def _python(text: str) -> Iterator[Mention]:
    found = PYTHON_IMPORT.match(text)
    if found is None:
        return
    names = iter((found,)) if found[1] else MODULE.finditer(text, found.start(2), found.end(2))
    for name in names:
        module = name[1]
        if module not in sys.stdlib_module_names and not module.startswith("_"):
            package = vocabulary().python_modules.get(module, module)
            yield Mention(Ecosystem.PYPI, package, *name.span(1), Where.IMPORT)
