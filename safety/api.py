"""What the rooms of `safety` share: where a piece of text came from.

A `Segment` is one part of a request with its origin. Origin, not wording, decides how far a text is trusted
(Countermind, arXiv 2510.11837): the same sentence is an order from a user and mere data from a tool.
"""

from dataclasses import dataclass
from enum import StrEnum


class Origin(StrEnum):
    """Who a text came from. SYSTEM and DEVELOPER are the application's words; TOOL and FILE are data, never orders."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Segment:
    """One text of a request: `text` as written, `folded` its NFKC view, `place` its path (`messages[2].content[0]`)."""

    origin: Origin
    text: str
    folded: str
    place: str
