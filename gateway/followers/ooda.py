"""The OODA loop's eyes and hands: it hears the record's calls, and what it does is a row of the record itself.

Runs on the followers' thread, as a follower and as a tick, so that one thread alone changes the loop. What it imposes
is read by admission (`safety/ooda/sanctions.py`).
"""

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import structlog

from conclave.gateway.access.standing import subject_of
from conclave.gateway.errors import Unavailable
from conclave.gateway.followers.api import Row
from conclave.gateway.followers.standing import BLOCK, WRITTEN, Written
from conclave.gateway.policy.posture import CONFINED
from conclave.safety.api import DATA, FOLDED
from conclave.safety.api import WRITTEN as AS_WRITTEN
from conclave.safety.audit.chain import stamp
from conclave.safety.detect.standing import Band, counts
from conclave.safety.detect.turns import JOINED
from conclave.safety.ooda.api import Observation, Step
from conclave.safety.ooda.loop import Loop, Orders
from conclave.safety.ooda.sanctions import Sanctions

PLAIN: Final = frozenset({AS_WRITTEN, FOLDED, JOINED})  # views that nobody had to decode
KIND: Final = "ooda"  # of its rows
MOST_TEXTS: Final = 20_000  # attacks that were heard of: 4 MB
IsNew: TypeAlias = Callable[[str, str], bool]  # whether a caller's attack is heard of for the first time

log = structlog.get_logger()


class OodaWatch:
    """A Follower over the calls of this process; call `tick` now and then. `append` is where rows go."""

    name = KIND
    past = False

    def __init__(
        self,
        *,
        orders: Callable[[], Orders],
        sanctions: Sanctions,
        append: Callable[[Mapping[str, Any]], object],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._append, self._now, self._now_s = append, now, now_s
        self._seen: dict[str, int] = {}
        self._heard: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._loop = Loop(orders=orders, sanctions=sanctions, note=self._note, now_s=now_s)
        self.tick = self._loop.tick

    def position(self) -> Mapping[str, int]:
        return dict(self._seen)

    def follow(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.seq > self._seen.get(row.chain, -1):
                self._seen[row.chain] = row.seq
                if row.data["kind"] == "call" and row.data.get("tenant") is not None:
                    self._loop.see(observation(row, self._now_s(), self._is_new))

    def _is_new(self, subject: str, text: str) -> bool:
        """Whether it is the first time that this attack comes from this caller."""
        name = subject, text
        known = name in self._heard
        self._heard[name] = None
        self._heard.move_to_end(name)
        while len(self._heard) > MOST_TEXTS:
            self._heard.popitem(last=False)
        return not known

    def _note(self, step: Step) -> None:
        """An entry in the record, and a line in the log: which subject, what, for how long, on what evidence."""
        action = step.action
        row = {
            "kind": KIND,
            "time": stamp(self._now()),
            "did": step.did,
            "deed": action.deed.value,
            "attack": action.attack.value,
            "subject": action.subject,
            "band": action.band.name.lower(),
            "seconds": round(max(0.0, action.until_s - self._now_s()), 1),
            "evidence": dict(step.evidence),
            "requests": list(step.requests),
        }
        try:
            self._append(row)
        except Unavailable:  # the journal keeps the row until it can be written
            log.warning("record.waits", kind=KIND)
        log.info(
            "ooda.step",
            did=step.did,
            deed=action.deed.value,
            attack=action.attack.value,
            subject=action.subject,
            evidence=dict(step.evidence),
        )


def observation(row: Row, now_s: float, is_new: IsNew = lambda *_: True) -> Observation:
    """A call as the loop sees it. One attack in one text is one, however often a client sends its history again."""
    data, written = row.data, WRITTEN.decode(row.raw)
    verdict: Mapping[str, Any] = data.get("verdict") or {"action": "", "findings": ()}
    subject = subject_of(data["tenant"], data.get("key_id"))
    by_name: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for one in verdict["findings"]:
        if one["acted"] and counts(one["check"], one["kind"]):
            by_name[_name(one, written)].append(one)
    attacks = [one for name, found in by_name.items() if is_new(subject, name) for one in found]
    refused = verdict["action"] == BLOCK
    origins = {one.place: one.origin for one in written.segments}
    usage: Mapping[str, Any] = data.get("usage") or {}
    standing: Mapping[str, Any] = data.get("standing") or {}
    return Observation(
        at_s=now_s,
        subject=subject,
        tenant=data["tenant"],
        request_id=data["request_id"],
        text=_asked(written),
        blocked=refused and bool(attacks),
        confined=data.get("code") == CONFINED or (refused and not attacks),
        good=Band.of(standing["key"]) is Band.OPEN if standing else True,
        attacks=len(attacks),
        encoded=sum(one["view"] not in PLAIN for one in attacks),
        in_data=sum(origins.get(one["place"]) in DATA for one in attacks),
        tokens=usage.get("completion_tokens") or 0,
        cut_off=data.get("finish_reason") == "length",
    )


def _name(finding: Mapping[str, Any], written: Written) -> str:
    """Which check found something in which text; what turns show together goes by the first of them."""
    digests = [one.digest for one in written.segments if one.place == finding["place"] or finding["view"] == JOINED]
    return f"{finding['check']} {digests[0] if digests else _asked(written)}"


def _asked(written: Written) -> str:
    """The digest of what the user said last."""
    return next((one.digest for one in reversed(written.segments) if one.origin == "user"), "")
