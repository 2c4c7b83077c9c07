"""What the checks of answers share: a stretch of an answer that is judged at once, and what a check promises about it.

An answer is cut into excerpts by its own text alone, never by how it arrived, so that a stream is judged as the whole
answer would be.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from conclave.safety.api import Action, Finding, Severity
from conclave.safety.verdict import OnError, consequence

Unit: TypeAlias = Literal["line", "block"]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A stretch of an answer: a line of prose, a line of a fenced block, or a whole fenced block.

    A line is a logical one: with its continuations (a backslash, caret or PowerShell backtick at its end, in code a
    pipe, too), with an HTML tag or a Markdown link that is still open. `text` is as the model wrote it, without the
    fences; `code` says that it stands in a fenced block or is a tool call's argument; `language` is the first word
    after the fence, in lower case.

    A long line comes in windows: each finding is judged with 512 characters before it and at least 128 after it, or to
    the line's ends; so an excerpt may begin and end within a word. A block beyond 64 Ki characters comes in parts.
    """

    text: str
    code: bool = False
    language: str = ""


class OutputCheck(Protocol):
    """One defence of answers. Pure, linear in the size of the text, bounded in what it returns.

    `unit`: what it must see at once; in prose every check sees lines. `triggers`: ASCII literals in lower case, at most
    64 characters, as the folded text has them (NFKC, no invisible characters). A line without any of them is not
    shown to the check; the empty one is in every line. A stream that may have to hold text back does so from a trigger
    on: what a finding covers before it is left out, but for the word that the trigger stands in, from that word's
    first sign on that is no letter (`paypa1.com` of the trigger `.com` from the 1).
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


class Spoken(Protocol):
    """A check that looks only at fenced blocks in some `languages`, as `Excerpt.language` has them."""

    @property
    def languages(self) -> frozenset[str]: ...


class Briefed(Protocol):
    """A check that must know what an answer may not repeat: `briefed` is the check for one call.

    `private` are the texts of the application's own messages. The result has the same name, unit and triggers.
    """

    def briefed(self, private: Sequence[str]) -> OutputCheck: ...


class Led(Protocol):
    """A check that in prose finds nothing but behind a lead: the text waits behind it, and is shown before it.

    `leads`: an RE2 pattern over the folded text of prose, where it takes the place of the triggers. The last character
    that it matches is the first that waits. No match has more than 64 characters, ends within one that begins before it
    does, or becomes another one when the text goes on.
    """

    @property
    def leads(self) -> str: ...


class Graded(Protocol):
    """A check that keeps its mildest findings to itself: `with_minor` is the one that tells them, too."""

    def with_minor(self) -> OutputCheck: ...


@dataclass(frozen=True, slots=True)
class OutputRule:
    """A check as policy uses it. With `observe` its findings are noted, and nothing follows from them."""

    check: OutputCheck
    action: Action = Action.ANNOTATE
    observe: bool = False
    on_error: OnError = "block"
    timeout_s: float = 1.0
    from_severity: Severity = Severity.LOW

    @property
    def holds(self) -> bool:
        """Whether text must wait for it."""
        return not self.observe and self.action >= Action.REDACT

    def action_of(self, finding: Finding) -> Action:
        """What policy does about a finding."""
        return Action.ALLOW if self.observe else self.would(finding)

    def would(self, finding: Finding) -> Action:
        """What it would do if nothing were only observed."""
        return consequence(self.action, finding, from_severity=self.from_severity)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call of an answer, whole: `arguments` as the model wrote them, JSON or not."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What policy says of a tool call: what happens, what was found, and on which of it policy acts.

    `would` is what would happen if nothing were only observed.
    """

    action: Action
    findings: tuple[Finding, ...] = ()
    acted: tuple[Finding, ...] = ()
    would: Action = Action.ALLOW


Authorise: TypeAlias = Callable[[ToolCall], Ruling]


class Restorer(Protocol):
    """Puts values back into one text of an answer, piece by piece: what `feed` keeps back, `finish` gives."""

    def feed(self, text: str) -> str: ...
    def finish(self) -> str: ...
