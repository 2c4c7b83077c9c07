"""Observe: the calls of the last minutes, counted by key as they come and taken off again as they grow old.

Bounded: so many calls in all, the oldest go first, so under load the window is shorter. It counts and never judges.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from conclave.safety.ooda.api import Counts, Observation

MOST_CALLS: Final = 50_000  # about 20 MB; at 80 calls a second the default window is whole
MOST_REQUESTS: Final = 8  # ids that stand in the evidence
BUCKET_S: Final = 5.0  # in which calls in good standing are counted


@dataclass(frozen=True, slots=True)
class Benign:
    """Calls of keys in good standing, and those of them that were refused."""

    calls: int = 0
    blocked: int = 0

    @property
    def rate(self) -> float:
        return self.blocked / self.calls if self.calls else 0.0


class Calls:
    """One subject's calls, with running sums."""

    __slots__ = ("blocked", "cut_off", "encoded", "in_data", "seen", "suspicious", "tenant", "texts", "tokens")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.seen: deque[tuple[int, Observation]] = deque()
        self.texts: Counter[str] = Counter()
        self.suspicious: deque[str] = deque(maxlen=MOST_REQUESTS)
        self.blocked = self.encoded = self.in_data = self.tokens = self.cut_off = 0

    def add(self, number: int, one: Observation) -> None:
        self.seen.append((number, one))
        self.texts[one.text] += 1
        if one.attacks or one.blocked:
            self.suspicious.append(one.request_id)
        self._sum(one, 1)

    def drop(self) -> None:
        """Take the oldest off again."""
        _, one = self.seen.popleft()
        self.texts[one.text] -= 1
        if not self.texts[one.text]:
            del self.texts[one.text]
        self._sum(one, -1)

    def _sum(self, one: Observation, sign: int) -> None:
        self.blocked += sign * one.blocked
        self.encoded += sign * one.encoded
        self.in_data += sign * one.in_data
        self.tokens += sign * one.tokens
        self.cut_off += sign * one.cut_off

    def counts(self) -> Counts:
        return Counts(
            calls=len(self.seen),
            blocked=self.blocked,
            encoded=self.encoded,
            in_data=self.in_data,
            texts=len(self.texts),
            tokens=self.tokens,
            cut_off=self.cut_off,
            requests=tuple(self.suspicious) if self.blocked or self.encoded or self.in_data else (),
        )


class Window:
    """What was seen lately, by subject; what was settled is no evidence any more."""

    def __init__(self, *, most_calls: int = MOST_CALLS) -> None:
        self._most_calls = most_calls
        self._by_subject: dict[str, Calls] = {}
        self._order: deque[tuple[int, float, str]] = deque()  # number, time and subject of each call, the oldest first
        self._number = 0
        self._good: dict[int, dict[str, list[int]]] = {}  # by bucket of time: calls in good standing, and refused ones

    def __len__(self) -> int:
        return len(self._order)

    def see(self, one: Observation) -> None:
        calls = self._by_subject.setdefault(one.subject, Calls(one.tenant))
        self._number += 1
        calls.add(self._number, one)
        self._order.append((self._number, one.at_s, one.subject))
        if one.good:
            bucket = self._good.setdefault(int(one.at_s // BUCKET_S), {})
            for name in (one.subject, f"tenant:{one.tenant}"):
                sums = bucket.setdefault(name, [0, 0])
                sums[0] += 1
                sums[1] += one.blocked or one.confined
        while len(self._order) > self._most_calls:
            self._drop_oldest()

    def forget(self, before_s: float) -> None:
        """Drop what is older."""
        while self._order and self._order[0][1] < before_s:
            self._drop_oldest()
        for bucket in [bucket for bucket in self._good if (bucket + 1) * BUCKET_S < before_s]:
            del self._good[bucket]

    def settle(self, subject: str) -> None:
        """What was seen of a subject (a key, or `tenant:NAME`) has had its answer: it is no evidence for another."""
        for name in [name for name, calls in self._by_subject.items() if subject in (name, f"tenant:{calls.tenant}")]:
            del self._by_subject[name]

    def subjects(self) -> Iterator[tuple[str, str, Counts]]:
        """Each subject with its tenant and its counts."""
        for subject, calls in self._by_subject.items():
            yield subject, calls.tenant, calls.counts()

    def benign(self, subject: str, since_s: float, until_s: float) -> Benign:
        """Calls in good standing of a key, or of a whole tenant (`tenant:NAME`), within a time."""
        calls = blocked = 0
        for bucket, names in self._good.items():
            if since_s <= bucket * BUCKET_S < until_s:
                sums = names.get(subject, (0, 0))
                calls += sums[0]
                blocked += sums[1]
        return Benign(calls, blocked)

    def _drop_oldest(self) -> None:
        number, _, subject = self._order.popleft()
        calls = self._by_subject.get(subject)
        if calls is None or not calls.seen or calls.seen[0][0] != number:
            return  # settled meanwhile
        calls.drop()
        if not calls.seen:
            del self._by_subject[subject]
