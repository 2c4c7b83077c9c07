"""The standing of keys, from the record: what checks found in a call moves its key a moment later, at no cost to it.

Only attacks that policy acted on, and only the caller's own words: what a tool's result or a file said is nobody's
fault who sent it on. A call counts once, and one attack in one text once, however often the text is sent again. It is
kept in memory, so only this process's chain is followed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from conclave.gateway.access.standing import Standings, subject_of
from conclave.gateway.followers.api import Row
from conclave.safety.api import Origin, Severity
from conclave.safety.detect.standing import CALLERS, Seen, blame_of, counts
from conclave.safety.detect.turns import JOINED

BLOCK: Final = "block"  # the action of a verdict that refused the call


class WrittenSegment(msgspec.Struct, frozen=True):
    """Of a segment's entry in a row, what followers of attacks read."""

    origin: str
    place: str
    digest: str


class Written(msgspec.Struct, frozen=True):
    """Of a row, the texts that were sent; `Row.data` leaves them out, because most followers need none of them."""

    segments: list[WrittenSegment] = []


WRITTEN: Final = msgspec.json.Decoder(Written)


class KeyStandings:
    """A Follower that notes each call of which the record says how its key stood."""

    name = "standings"
    past = False

    def __init__(self, standings: Standings) -> None:
        self._standings = standings
        self._seen: dict[str, int] = {}

    def position(self) -> Mapping[str, int]:
        return dict(self._seen)

    def follow(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.seq > self._seen.get(row.chain, -1):
                self._seen[row.chain] = row.seq  # first: a row that cannot be counted must not be counted twice
                self._note(row)

    def _note(self, row: Row) -> None:
        verdict = row.data.get("verdict")
        if row.data["kind"] != "call" or row.data.get("standing") is None or verdict is None:
            return
        seen = tuple(attacks_in(verdict, row.raw))
        if seen or row.data["ending"] == "answered":
            subject = subject_of(row.data["tenant"], row.data["key_id"])
            self._standings.note(subject, [one for one in seen if one.by_caller])


def attacks_in(verdict: Mapping[str, Any], raw: bytes) -> Iterator[Seen]:
    """The attacks that a row tells of, as `safety/detect/standing.py` sees them in a live call."""
    acted = [one for one in verdict["findings"] if one["acted"] and counts(one["check"], one["kind"])]
    if not acted:
        return
    refused = verdict["action"] == BLOCK
    segments = WRITTEN.decode(raw).segments
    by_place = {one.place: one for one in segments}
    began = next((one.digest for one in segments if one.origin == Origin.USER), "")
    for one in acted:
        segment = by_place.get(one["place"])
        if segment is not None:
            blame = blame_of(Severity[one["severity"].upper()], refused=refused)
            text = began if one["view"] == JOINED else segment.digest
            yield Seen(blame, f"{one['check']} {text}", refused, segment.origin in CALLERS)
