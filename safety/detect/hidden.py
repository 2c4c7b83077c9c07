"""Finds what was hidden from the person who sent it: words in characters that nobody sees.

Tags, variation selectors and zero-width bits carry whole sentences through a clipboard unseen; no keyboard writes them.
Encodings that a person can see (base64, hex) are no finding of this check: the other checks read what they say.
"""

from collections.abc import Sequence
from typing import Final

from conclave.safety.api import WRITTEN, Finding, Origin, Severity, View
from conclave.safety.boundary.invisible import hidden

EVIDENCE_CHARS: Final = 80


class HiddenCheck:
    """A Check: messages in invisible characters, wherever they came from."""

    name = "hidden"
    origins = frozenset(Origin)
    decodes = False

    def inspect(self, view: View) -> Sequence[Finding]:
        return [
            Finding(
                check=self.name,
                kind=f"hidden.{way.replace(' ', '_').replace('-', '_')}",
                severity=Severity.HIGH,
                confidence=1.0,
                place=view.segment.place,
                start=start,
                end=end,
                view=WRITTEN,
                evidence=said[:EVIDENCE_CHARS],
                remedy="send the text without characters that do not show",
            )
            for way, start, end, said in hidden(view.text)
        ]
