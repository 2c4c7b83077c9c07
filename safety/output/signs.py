"""What a line must have for a check to find anything in it: one pass of RE2 over the line for all of a check's rules.

Most lines that a check is shown have nothing for it, and to learn that from each rule by itself is what costs. A sign is
as wide as the pattern that it stands for, or wider: it may let a line through for nothing, and never hides one. Texts
are read as `safety.detect.patterns` reads them, as Latin-1 with `?` for what is beyond it.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from re2 import Set

    from conclave.safety.detect.patterns import Rule

MEMORY_BYTES: Final = 32 << 20  # of the automaton: many patterns that begin anywhere have many states
WORD: Final = r"[\w?\x80-\xff]"  # whatever `\w` of Python may be
BLANK: Final = r"[\s\x0b\x1c-\x1f\x85\xa0?]"  # and `\s`


class Signs:
    """Patterns of RE2 that are looked for together. Raises ValueError for one that RE2 does not take.

    `first` are looked for before them, and must be in every text that they are in.
    """

    __slots__ = ("_first", "_patterns")

    def __init__(self, patterns: Iterable[str], *, first: Iterable[str] = ()) -> None:
        self._patterns = _automaton(patterns)
        self._first = _automaton(first) if first else None

    @classmethod
    def of(cls, rules: Sequence["Rule"]) -> "Signs":
        """Of rules: first the marks that most lines lack, and that need few states, then the patterns."""
        return cls((rule.pattern for rule in rules), first=[rule.near or rule.mark or rule.pattern for rule in rules])

    def within(self, text: str) -> Sequence[int]:
        """The numbers of those that the text has."""
        data = text.encode("latin-1", "replace")
        if self._first is not None and not self._first.Match(data):
            return ()
        return self._patterns.Match(data) or ()


def _automaton(patterns: Iterable[str]) -> "Set":
    import re2  # noqa: PLC0415  20 ms, and only where a policy looks at answers

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = MEMORY_BYTES
    automaton = re2.Set.SearchSet(options)
    for pattern in patterns:
        try:
            automaton.Add(pattern.encode("latin-1"))
        except (re2.error, UnicodeEncodeError) as error:
            raise ValueError(f"a sign is a pattern of RE2 in Latin-1, not {pattern!r} ({error})") from None
    automaton.Compile()
    return automaton
