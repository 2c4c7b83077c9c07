"""Where a call stands in a distributed trace: W3C Trace Context in, one value, W3C Trace Context out.

Decides which `traceparent` and `tracestate` headers are taken, by the letter of https://www.w3.org/TR/trace-context/;
what is malformed counts as absent. Never makes or exports a span: that is done from the record, after the call.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

SAMPLED: Final = 0x01
KNOWN_FLAGS: Final = 0x03  # sampled, and the random flag of Level 2: what a newer version's mean is unknown
SPAN_BITS: Final = 64
ALL_BITS: Final = (1 << SPAN_BITS) - 1
MOST_MEMBERS: Final = 32  # of a tracestate; the recommendation's own limit
STATE_CHARS: Final = 512  # of a tracestate that are passed on; the least that it asks for
LONG_MEMBER_CHARS: Final = 128  # members longer than this go first if there are too many characters
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

_PARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")
_KEY: Final = r"[a-z0-9][a-z0-9_*/-]{0,240}(?:@[a-z][a-z0-9_*/-]{0,13})?|[a-z][a-z0-9_*/-]{0,255}"
_MEMBER: Final = re.compile(rf"(?:{_KEY})=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]")


@dataclass(frozen=True, slots=True)
class Trace:
    """A call's place in its trace.

    `parent_id` is the span that the call lies in; `span_id` the call's own, 0 where the gateway makes no spans: then
    what came is passed on as it came. `state` is vendors' `tracestate`, never looked into.
    """

    trace_id: int
    parent_id: int
    span_id: int = 0
    flags: int = SAMPLED
    state: str = ""

    @classmethod
    def below(cls, trace_id: int, parent_id: int, *, flags: int, state: str = "") -> "Trace":
        """A call with spans of its own, inside the span `parent_id`."""
        return cls(trace_id, parent_id, random.getrandbits(SPAN_BITS) or 1, flags, state)  # an id, no secret

    @property
    def sampled(self) -> bool:
        """Whether who began the trace wants its spans."""
        return bool(self.flags & SAMPLED)

    def part(self, number: int) -> int:
        """The span id of the call's part with this number, from 1: the same for whoever asks, so it is kept nowhere."""
        return (self.span_id + number) & ALL_BITS or ALL_BITS

    def onward(self, attempt: int) -> Mapping[str, str]:
        """The headers for the expert that is asked as number `attempt`, from 0; its span is the part after that."""
        below = self.part(attempt + 1) if self.span_id else self.parent_id
        headers = {"traceparent": f"00-{self.trace_id:032x}-{below:016x}-{self.flags:02x}"}
        if self.state:
            headers["tracestate"] = self.state
        return headers


def passed_on(traceparent: str | None, tracestate: str | None) -> Trace | None:
    """The trace of a client's headers; several headers of one name come joined by commas. None: there is none."""
    found = _PARENT.fullmatch(traceparent) if traceparent is not None else None
    if found is None:
        return None
    version, trace_id, parent_id = found[1], int(found[2], 16), int(found[3], 16)
    if version == "ff" or not trace_id or not parent_id or (version == "00" and found[5] is not None):
        return None
    flags = int(found[4], 16)
    return Trace(trace_id, parent_id, 0, flags if version == "00" else flags & KNOWN_FLAGS, _state(tracestate or ""))


def _state(tracestate: str) -> str:
    """The members that are passed on, in their order; none if one of them is malformed or named twice."""
    members = [member for part in tracestate.split(",") if (member := part.strip(" \t"))]
    names = {member.partition("=")[0] for member in members}
    if len(members) > MOST_MEMBERS or len(names) < len(members) or not all(map(_MEMBER.fullmatch, members)):
        return ""
    if _chars(members) > STATE_CHARS:
        members = [member for member in members if len(member) <= LONG_MEMBER_CHARS]
    while _chars(members) > STATE_CHARS:
        members.pop()
    return ",".join(members)


def _chars(members: list[str]) -> int:
    return sum(map(len, members)) + len(members) - 1
