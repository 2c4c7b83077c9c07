"""`code`: insecure code in what an answer shows, with the weakness it is (CWE) and what to write instead.

It looks at fenced blocks and at the code in tool calls, never at prose: Python, JavaScript, TypeScript, shell, C, C++
and Java by their syntax trees, PHP, Ruby, Go, C#, Rust and Kotlin by patterns. What is only constant is no finding. It
tells nothing about code that it does not understand, and never runs any.
"""

from collections.abc import Sequence
from typing import Final

from conclave.safety.api import Finding, Severity
from conclave.safety.output.api import Excerpt, Unit
from conclave.safety.output.code.judge import Broken, judge
from conclave.safety.output.code.languages import language_of

NAME: Final = "code"


class CodeCheck:
    """Insecure patterns from `least` on. Milder ones are mostly harmless where they stand."""

    name = NAME
    unit: Unit = "block"
    triggers: Sequence[str] = ()  # nothing in prose

    def __init__(self, *, least: Severity = Severity.MEDIUM) -> None:
        self._least = least

    def with_minor(self) -> "CodeCheck":
        """The same, with what is mostly harmless where it stands."""
        return CodeCheck(least=Severity.LOW)

    def inspect(self, excerpt: Excerpt) -> Sequence[Finding]:
        if not excerpt.code:
            return ()
        text = excerpt.text
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode()  # without lone surrogates, each place as it was
        return [_finding(one) for one in judge(text, language_of(excerpt.language, text), least=self._least)]


def _finding(one: Broken) -> Finding:
    return Finding(
        check=NAME,
        kind=f"{NAME}.{one.rule.id}",
        severity=one.severity,
        confidence=1.0,
        place="",
        start=one.start,
        end=one.end,
        evidence=f"CWE-{one.rule.cwe}",
        remedy=one.rule.remedy,
        instead=one.rule.instead,
    )
