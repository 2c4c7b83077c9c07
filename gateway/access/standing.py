"""The standing of keys and conversations: kept in memory, read when a call is admitted, changed when it has ended.

Bounded and lost with the process: who is forgotten stands at the base again, which errs in the caller's favour. Another
store (Redis, for several replicas) is another `Standings`. Never decides what follows from a band.
"""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Protocol

from conclave.gateway.access.scope import Grant
from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import Forbidden
from conclave.gateway.policy.arms import conversation_of
from conclave.safety.api import Origin, Segment
from conclave.safety.detect.standing import BASE, Band, Seen, Standing, seen_in, worst
from conclave.safety.ooda.sanctions import Sanctions
from conclave.safety.verdict import Verdict

MOST_SUBJECTS: Final = 50_000  # keys and conversations: about 15 MB
MOST_TEXTS: Final = 20_000  # attacks that were counted, and texts that were let pass: 4 MB each
DIGEST_BYTES: Final = 16
KEY_BLOCKED: Final = "key_blocked"  # the error's code
NAMED: Final = "named:"  # how a conversation's name begins that the client chose


class Standings(Protocol):
    """Where standings are kept. A subject is `key:ID`, `tenant:NAME`, or the hash of a conversation."""

    def trust_of(self, subject: str) -> float:
        """How far it is trusted now, 0..1."""
        ...

    def note(self, subject: str, seen: Iterable[Seen]) -> None:
        """A call of this subject has ended; `seen` are the attacks in it."""
        ...


class LocalStandings:
    """In process. Called from the event loop and from the followers' thread."""

    def __init__(
        self,
        *,
        most: int = MOST_SUBJECTS,
        most_texts: int = MOST_TEXTS,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._most_texts, self._now_s = most, most_texts, now_s
        self._standings: OrderedDict[str, Standing] = OrderedDict()  # the least recently changed first
        self._counted: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._standings)

    def trust_of(self, subject: str) -> float:
        return self._standings.get(subject, NEW).trust_at(self._now_s())

    def note(self, subject: str, seen: Iterable[Seen]) -> None:
        """One attack in one text counts once, however often the text is sent again; a call without a new one is clean.

        Unless it was refused: to send a refused text again earns nothing.
        """
        now_s, attacks = self._now_s(), tuple(seen)
        with self._lock:
            before = self._standings.get(subject, NEW)
            fresh = [one for one in attacks if self._is_new(subject, one.text)]
            if fresh:
                after = before.after(worst(fresh), now_s)
            elif any(one.refused for one in attacks):
                after = before
            else:
                after = before.after_clean(now_s)
            self._standings[subject] = after
            self._standings.move_to_end(subject)
            while len(self._standings) > self._most:
                self._standings.popitem(last=False)

    def _is_new(self, subject: str, text: str) -> bool:
        name = subject, text
        if name in self._counted:
            self._counted.move_to_end(name)
            return False
        self._counted[name] = None
        while len(self._counted) > self._most_texts:
            self._counted.popitem(last=False)
        return True


NEW: Final = Standing()


def subject_of(tenant: str, key_id: str | None) -> str:
    """Who calls: a key, or all callers of a tenant that have none."""
    return f"key:{key_id}" if key_id is not None else f"tenant:{tenant}"


class Names:
    """Names that give nothing away: of conversations and of texts, under a key that dies with the process."""

    def __init__(self) -> None:
        self._keyed = blake2b(key=secrets.token_bytes(32), digest_size=DIGEST_BYTES)

    def of(self, *parts: str) -> str:
        hashed = self._keyed.copy()
        for part in parts:
            raw = part.encode("utf-8", "surrogatepass")
            hashed.update(b"%d:" % len(raw) + raw)  # lengths: no two lists of parts are the same bytes
        return hashed.hexdigest()


@dataclass(frozen=True, slots=True)
class Stood:
    """Where a call stood when it was looked at: the trust in its key and in its conversation.

    `band` is what policy makes of them, or what the OODA loop imposes if that is stricter; `followed` says whether it
    counts, or is only written down. `subject` names the conversation; None where there is none. `passed` are the places
    of texts in which something was found before, and let pass: a client sends them again with every turn. `caller` and
    `sent` are whose texts these are, and the texts as they came.
    """

    key: float
    conversation: float
    band: Band
    followed: bool
    imposed: Band = Band.OPEN
    subject: str | None = None
    passed: frozenset[str] = frozenset()
    caller: str = ""
    sent: Sequence[Segment] = ()


@dataclass(frozen=True, slots=True)
class Door:
    """What is known of a caller at the door."""

    trust: float = BASE
    imposed: Band = Band.OPEN
    requests_per_minute: int | None = None


class Bands(Protocol):
    """What a tenant's policy makes of trust: `gateway/policy/posture.py`."""

    @property
    def counts(self) -> bool:
        """Whether calls are counted at all."""
        ...

    def at_door(self, trust: float, imposed: Band) -> int | None:
        """The requests a minute that a key may make in its band; None: as many as `limits` say."""
        ...

    def band(self, key: float, conversation: float, imposed: Band) -> tuple[Band, bool]:
        """The band, and whether it is followed."""
        ...


class Vetting:
    """Reads and notes standings. `bands_for` is a tenant's policy; without it, everybody is as good as anybody."""

    def __init__(
        self,
        standings: Standings | None = None,
        sanctions: Sanctions | None = None,
        bands_for: "Callable[[str], Bands] | None" = None,
    ) -> None:
        self._standings = standings if standings is not None else LocalStandings()
        self._sanctions = sanctions if sanctions is not None else Sanctions()
        self._bands_for = bands_for
        self._names = Names()
        self._passed: OrderedDict[str, None] = OrderedDict()  # the newest last

    def at_door(self, tenant: str, key_id: str | None) -> Door:
        """A caller's standing. Raises Forbidden for a key that is blocked for a while."""
        if self._bands_for is None:
            return Door()
        subject = subject_of(tenant, key_id)
        if (left_s := self._sanctions.barred_s(subject)) > 0:
            raise Forbidden(
                f"this key is blocked for another {left_s:.0f} s: too many of its calls were refused; "
                "whoever runs this gateway finds why in the record",
                code=KEY_BLOCKED,
            )
        trust, imposed = self._standings.trust_of(subject), self._sanctions.band(subject, tenant)
        return Door(trust, imposed, self._bands_for(tenant).at_door(trust, imposed))

    def look(self, grant: Grant, request: ModelRequest, segments: Sequence[Segment], bands: Bands) -> Stood | None:
        """Where a call stands, once its texts are known; None where policy does not count."""
        if not bands.counts:
            return None
        subject = None
        if request.operation == "chat":
            subject = self._names.of(grant.tenant, grant.key_id or "", *began(request, segments))
        trust = self._standings.trust_of(subject) if subject is not None else BASE
        band, followed = bands.band(grant.standing, trust, grant.imposed)
        caller = subject_of(grant.tenant, grant.key_id)
        passed = self._known(caller, segments) if followed and band > Band.OPEN else frozenset[str]()
        return Stood(grant.standing, trust, band, followed, grant.imposed, subject, passed, caller, segments)

    def note(self, stood: Stood | None, verdict: Verdict, segments: Sequence[Segment], *, answered: bool) -> None:
        """A call has ended: its conversation's standing is what the checks make it. Keys are noted from the record."""
        if stood is None or not verdict.ran:
            return
        if verdict.acted and answered:
            self._keep(stood, {one.place for one in verdict.acted})
        if stood.subject is None:
            return
        seen = seen_in(verdict, segments, self._names.of)
        if seen or answered:
            self._standings.note(stood.subject, seen)

    def _keep(self, stood: Stood, places: Collection[str]) -> None:
        """Something was found in these texts, and they were let pass and answered."""
        for one in stood.sent:
            if one.place in places:
                name = self._names.of(stood.caller, one.origin, one.text)
                self._passed[name] = None
                self._passed.move_to_end(name)
        while len(self._passed) > MOST_TEXTS:
            self._passed.popitem(last=False)

    def _known(self, caller: str, segments: Sequence[Segment]) -> frozenset[str]:
        """The places of texts that this caller sent before, and that were let pass."""
        if not self._passed:
            return frozenset()
        return frozenset(one.place for one in segments if self._names.of(caller, one.origin, one.text) in self._passed)


def began(request: ModelRequest, segments: Sequence[Segment]) -> tuple[str, ...]:
    """What tells a conversation from others: its name, else its first question with the answer to it.

    Many begin with the same words, but not with the same answer. Until there is one, a question stands for itself.
    """
    named = conversation_of(request, segments)
    first = next((one.text for one in segments if one.origin is Origin.ASSISTANT), "")
    return (named,) if named.startswith(NAMED) else (named, first)
