"""Observe: the calls of the last minutes, counted by key as they come and taken off again as they grow old.

Bounded: so many calls in all, the oldest go first, so under load the window is shorter. It counts and never judges.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from conclave.safety.ooda.api import Counts, Observation

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_CALLS: Final = 50_000  # at 80 calls a second the default window is whole; 2 MB as a table, 37 MB as objects
MOST_REQUESTS: Final = 8  # ids that stand in the evidence
BUCKET_S: Final = 5.0  # in which calls in good standing are counted
NOBODY: Final = 0  # the number of no subject: a row that is free, forgotten or settled
ROW: Final = {  # 40 bytes; in the order in which a call is written
    **{"at_s": "f8", "text": "i8", "tokens": "i8", "subject": "u4"},
    **{"encoded": "u4", "in_data": "u4", "blocked": "?", "cut_off": "?"},
}
HASH_BITS: Final = 44  # of a text: two of 50,000 are taken for one in a window of 14,000
HASH: Final = (1 << HASH_BITS) - 1
SUMMED: Final = ("blocked", "encoded", "in_data", "tokens", "cut_off")


@dataclass(frozen=True, slots=True)
class Benign:
    """Calls of keys in good standing, and those of them that were refused."""

    calls: int = 0
    blocked: int = 0

    @property
    def rate(self) -> float:
        return self.blocked / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class Subject:
    """Who calls, the number that stands for it in the table, and the newest of its calls with an attack."""

    number: int
    tenant: str
    suspicious: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_REQUESTS))


class Window:
    """What was seen lately, by subject; what was settled is no evidence any more."""

    def __init__(self, *, most_calls: int = MOST_CALLS) -> None:
        import numpy as np  # noqa: PLC0415  numpy is imported where it is first needed

        self._rows: NDArray[Any] = np.zeros(most_calls, dtype=np.dtype(list(ROW.items()), align=True))
        self._seen = 0
        self._subjects: dict[str, Subject] = {}
        self._free: list[int] = []  # numbers that stood for somebody; so the highest is one of 100,000
        self._good: dict[int, dict[str, list[int]]] = {}  # by bucket of time: calls in good standing, and refused ones

    def __len__(self) -> int:
        return int((self._column("subject") != NOBODY).sum())

    def see(self, one: Observation) -> None:
        known = self._subjects.get(one.subject) or self._meet(one)
        place = self._seen % len(self._rows)
        text = known.number << HASH_BITS | hash(one.text) & HASH  # so all texts of all subjects are told apart at once
        counted = one.tokens, known.number, one.encoded, one.in_data, one.blocked, one.cut_off
        self._rows[place] = (one.at_s, text, *counted)
        self._seen += 1
        if one.attacks or one.blocked:
            known.suspicious.append(one.request_id)
        if one.good:
            bucket = self._good.setdefault(int(one.at_s // BUCKET_S), {})
            for name in (one.subject, f"tenant:{one.tenant}"):
                sums = bucket.setdefault(name, [0, 0])
                sums[0] += 1
                sums[1] += one.blocked or one.confined
        if place + 1 == len(self._rows):
            self._tidy()

    def forget(self, before_s: float) -> None:
        """Drop what is older."""
        self._column("subject")[self._column("at_s") < before_s] = NOBODY
        self._tidy()
        for bucket in [bucket for bucket in self._good if (bucket + 1) * BUCKET_S < before_s]:
            del self._good[bucket]

    def settle(self, subject: str) -> None:
        """What was seen of a subject (a key, or `tenant:NAME`) has had its answer: it is no evidence for another."""
        whose = self._column("subject")
        for name, known in list(self._subjects.items()):
            if subject in (name, f"tenant:{known.tenant}"):
                whose[whose == known.number] = NOBODY
                self._free.append(self._subjects.pop(name).number)

    def subjects(self) -> Iterator[tuple[str, str, Counts]]:
        """Each subject with its tenant and its counts."""
        import numpy as np  # noqa: PLC0415

        live = self._column("subject") != NOBODY
        most = self._most_subjects
        hashes = self._column("text")[live]
        hashes.sort()  # np.unique takes 20 ms for 50,000 (numpy 2.4), this 1
        texts = np.bincount(hashes[np.diff(hashes, prepend=-1) != 0] >> HASH_BITS, minlength=most)
        whose = self._column("subject")[live].astype(np.intp)
        calls = np.bincount(whose, minlength=most)
        sums = {name: np.bincount(whose, self._column(name)[live], minlength=most) for name in SUMMED}
        for subject, known in self._subjects.items():
            at = known.number
            if calls[at]:
                counted = {name: int(of[at]) for name, of in sums.items()}
                counts = Counts(calls=int(calls[at]), texts=int(texts[at]), requests=(), **counted)
                attacked = counts.blocked or counts.encoded or counts.in_data
                yield subject, known.tenant, replace(counts, requests=tuple(known.suspicious)) if attacked else counts

    def benign(self, subject: str, since_s: float, until_s: float) -> Benign:
        """Calls in good standing of a key, or of a whole tenant (`tenant:NAME`), within a time."""
        calls = blocked = 0
        for bucket, names in self._good.items():
            if since_s <= bucket * BUCKET_S < until_s:
                sums = names.get(subject, (0, 0))
                calls += sums[0]
                blocked += sums[1]
        return Benign(calls, blocked)

    def _meet(self, one: Observation) -> Subject:
        number = self._free.pop() if self._free else len(self._subjects) + 1  # all below are taken
        known = self._subjects[one.subject] = Subject(number, one.tenant)
        return known

    def _tidy(self) -> None:
        """Forget who has no calls left."""
        import numpy as np  # noqa: PLC0415

        calls = np.bincount(self._column("subject"), minlength=self._most_subjects)
        for name in [name for name, known in self._subjects.items() if not calls[known.number]]:
            self._free.append(self._subjects.pop(name).number)

    @property
    def _most_subjects(self) -> int:
        """More than the highest number that stands for somebody."""
        return len(self._subjects) + len(self._free) + 1

    def _column(self, name: str) -> "NDArray[Any]":
        """A field of all rows that were ever written, to be read or changed in place."""
        return self._rows[: self._seen][name]
