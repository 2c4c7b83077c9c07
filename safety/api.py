"""What the rooms of `safety` share: where a text came from, how it can be read, and what a check finds in it.

A `Segment` is one part of a request with its origin. Origin, not wording, decides how far a text is trusted
(Countermind, arXiv 2510.11837): the same sentence is an order from a user and mere data from a tool.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, Protocol

WRITTEN: Final = "written"  # the name of the view that a segment's own text is
FOLDED: Final = "folded"  # and of the view that is what it looks like
INSIDE: Final = ".inside"  # ends the place of a text that was read out of a part: it stands nowhere in the body itself


class Origin(StrEnum):
    """Who a text came from. SYSTEM and DEVELOPER are the application's words; those in DATA are never orders."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    FILE = "file"
    IMAGE = "image"
    RETRIEVED = "retrieved"
    MEMORY = "memory"


OFFERED: Final = re.compile(r"(?:tools|functions)(?:\[\d+\])?(?=[.{<]|$)")  # how a place within an offered tool begins
DATA: Final = frozenset({Origin.TOOL, Origin.FILE, Origin.IMAGE, Origin.RETRIEVED, Origin.MEMORY})


@dataclass(frozen=True, slots=True)
class Segment:
    """One text of a request: `text` as written, `folded` its NFKC view, `place` its path (`messages[2].content[0]`).

    `source` names where data came from, as far as it says so: the id of a tool call, the name of a file.
    """

    origin: Origin
    text: str
    folded: str
    place: str
    source: str = ""


def tool_of(place: str) -> str:
    """The place of the offered tool that a text describes (`tools[2]`); empty for any other text."""
    found = OFFERED.match(place)
    return found[0] if found is not None else ""


class Severity(IntEnum):
    """How much harm a finding could do if it is right."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3


class Action(IntEnum):
    """What policy does about a finding, from the mildest on; the strictest of a request's actions counts."""

    ALLOW = 0
    ANNOTATE = 1
    REDACT = 2
    CONFIRM = 3
    BLOCK = 4


@dataclass(frozen=True, slots=True)
class View:
    """One way to read a segment: as written, folded, or decoded (`base64`, `rot13 in hex`).

    `start` and `end` are what it was made from, as character positions in the segment's text.
    """

    segment: Segment
    name: str
    text: str
    start: int
    end: int

    @property
    def is_decoded(self) -> bool:
        """Whether it says what the text itself does not show."""
        return self.name not in {WRITTEN, FOLDED}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a check saw in a segment. Policy, not the check, says what follows from it.

    `kind` is a bounded label (`secret.aws_access_key`). `confidence` is within 0..1; 1 for a rule. `start` and `end`
    are character positions in the segment's text as written: what redaction would cover. `evidence` is short and
    never holds a whole secret; it is kept only where policy keeps text. `remedy` tells a person what to do instead;
    `instead` is what redaction puts in its place, where there is something better than a mark.
    """

    check: str
    kind: str
    severity: Severity
    confidence: float
    place: str
    start: int
    end: int
    view: str = WRITTEN
    evidence: str = ""
    remedy: str = ""
    instead: str = ""


class Check(Protocol):
    """One defence. Pure, linear in the size of the text, and bounded in what it returns.

    `name` is its name in the policy. `origins` are those whose segments it reads. `decodes`: it reads every view of a
    segment, not only the text as written.
    """

    @property
    def name(self) -> str: ...
    @property
    def origins(self) -> frozenset[Origin]: ...
    @property
    def decodes(self) -> bool: ...

    def inspect(self, view: View) -> Sequence[Finding]:
        """What it finds in one view."""
        ...


@dataclass(frozen=True, slots=True)
class Document:
    """A file of a request, out of its encoding: `media_type` is what its bytes are, `name` what its sender calls it."""

    data: bytes
    media_type: str
    name: str = ""


class Reader(Protocol):
    """Reads the text inside documents. What it returns is data, whoever sent it."""

    def read(self, document: Document) -> str | None:
        """All of its text, shown or not; None for a type that it does not read. Blocks.

        Raises PartError for a document that is refused, and anything else where reading itself failed.
        """
        ...
