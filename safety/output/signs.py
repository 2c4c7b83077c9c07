"""What a line must have for a check to find anything in it: one pass of RE2 over the line for all of a check's rules.

Most lines that a check is shown have nothing for it, and to learn that from each rule by itself is what costs. A sign
is as wide as the pattern that it stands for, or wider: it may let a line through for nothing, and never hides one.
Texts are read as `safety.detect.patterns` reads them, as Latin-1 with `?` for what is beyond it.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from conclave.safety.detect.patterns import Rule

MEMORY_BYTES: Final = 32 << 20  # of the automaton: many patterns that begin anywhere have many states
WORD: Final = r"[\w?\x80-\xff]"  # whatever `\w` of Python may be
BLANK: Final = r"[\s\x0b\x1c-\x1f\x85\xa0?]"  # and `\s`


class Signs:
    """Patterns of RE2 that are looked for together. Raises ValueError for one that RE2 does not take."""

    __slots__ = ("_automaton",)

    def __init__(self, patterns: Iterable[str]) -> None:
        import re2  # noqa: PLC0415  20 ms, and only where a policy looks at answers

        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.log_errors = False
        options.max_mem = MEMORY_BYTES
        self._automaton = re2.Set.SearchSet(options)
        for pattern in patterns:
            try:
                self._automaton.Add(pattern.encode("latin-1"))
            except (re2.error, UnicodeEncodeError) as error:
                raise ValueError(f"a sign is a pattern of RE2 in Latin-1, not {pattern!r} ({error})") from None
        self._automaton.Compile()

    def within(self, text: str) -> Sequence[int]:
        """The numbers of those that the text has."""
        return self._automaton.Match(text.encode("latin-1", "replace")) or ()


class RuleSigns:
    """Of a file of rules: their marks first, which most lines lack and which need few states, then the patterns.

    `beside` is one more sign that is looked for with the marks.
    """

    __slots__ = ("_beside", "_marks", "_patterns")

    def __init__(self, rules: Sequence["Rule"], *, beside: str = "") -> None:
        self._marks = Signs(
            [*(rule.near or rule.mark or rule.pattern for rule in rules), *([beside] if beside else [])]
        )
        self._patterns = Signs(rule.pattern for rule in rules)
        self._beside = len(rules)

    def within(self, text: str) -> bool:
        """Whether a rule can match."""
        return self.seen(text)[0]

    def seen(self, text: str) -> tuple[bool, bool]:
        """Whether a rule can match, and whether what is looked for beside them is there."""
        marks = self._marks.within(text)
        if not marks:
            return False, False
        beside = self._beside in marks
        return len(marks) > beside and bool(self._patterns.within(text)), beside
