"""What the checks of answers share: a stretch of an answer that is judged at once, and what a check promises about it.

An answer is cut into excerpts by its own text alone, never by how it arrived, so that a stream is judged as the whole
answer would be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from conclave.safety.api import Finding

Unit: TypeAlias = Literal["line", "block"]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A stretch of an answer: a line of prose, a line of a fenced block, or a whole fenced block.

    A line is a logical one: with its continuations (a backslash or a PowerShell backtick at its end), with an HTML tag
    or a Markdown link that is still open. `text` is as the model wrote it, without the fences; `code` says that it
    stands in a fenced block or is a tool call's argument; `language` is the first word after the fence, in lower case.
    """

    text: str
    code: bool = False
    language: str = ""


class OutputCheck(Protocol):
    """One defence of answers. Pure, linear in the size of the text, bounded in what it returns.

    `unit`: what it must see at once. `triggers`: literals in lower case, folded (NFKC, no invisible characters); every
    finding of it in a line lies at or after one of them, the first character of the finding's span not before the word
    that the trigger stands in. A stream holds text back only from a trigger on.
    """

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> Unit: ...
    @property
    def triggers(self) -> Sequence[str]: ...

    def inspect(self, excerpt: Excerpt) -> Sequence[Finding]:
        """What it finds: `start` and `end` within `excerpt.text`, `place` left empty: the caller knows both."""
        ...
