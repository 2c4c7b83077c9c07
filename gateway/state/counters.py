"""Counters that limit how often something may happen: here in process; the Protocol is what a shared store would offer.

They know names and limits, not what is limited: keys, tenants and sources are `gateway/access`'s business.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

MAX_NAMES: Final = 100_000  # about 20 MB; beyond it the oldest name is forgotten, which errs in the caller's favour


@dataclass(frozen=True, slots=True)
class Taken:
    """One try. `remaining` more are allowed now; `reset_s` until all are; `retry_after_s` is 0 if it was allowed."""

    allowed: bool
    remaining: int
    retry_after_s: float
    reset_s: float


class Counters(Protocol):
    async def take(self, name: str, *, limit: int, period_s: float, burst: int | None = None) -> Taken:
        """Take one of `limit` per `period_s`; up to `burst` (default: `limit`) at once. A refused try costs nothing."""
        ...


class LocalCounters:
    """The generic cell rate algorithm (ITU-T I.371): one number a name, exact retry times, no windows to align.

    A name's number is the theoretical arrival time (TAT): when everything taken so far would have been earned back.
    """

    def __init__(self, *, now_s: Callable[[], float] = time.monotonic, max_names: int = MAX_NAMES) -> None:
        self._now_s = now_s
        self._max_names = max_names
        self._arrival_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._arrival_s)

    async def take(self, name: str, *, limit: int, period_s: float, burst: int | None = None) -> Taken:
        if limit < 1 or period_s <= 0:
            raise ValueError(f"a limit is at least 1 per a positive period, not {limit} per {period_s} s")
        now = self._now_s()
        each_s = period_s / limit
        tolerance_s = each_s * (limit if burst is None else burst)
        known = self._arrival_s.get(name)
        ahead_s = max(0.0, known - now) if known is not None else 0.0
        if ahead_s + each_s > tolerance_s + 1e-6:  # 1e-6: floats of `each_s` that add up to the tolerance are no excess
            return Taken(False, 0, ahead_s + each_s - tolerance_s, ahead_s)
        if known is None:
            self._make_room(now)
        ahead_s += each_s
        self._arrival_s[name] = now + ahead_s
        return Taken(True, int((tolerance_s - ahead_s) / each_s + 1e-6), 0.0, ahead_s)

    def _make_room(self, now: float) -> None:
        """Look at the two oldest names for each new one, so that forgetting keeps up without ever sweeping all."""
        for _ in range(min(2, len(self._arrival_s))):
            name, arrival_s = self._arrival_s.popitem(last=False)
            if arrival_s > now:
                self._arrival_s[name] = arrival_s
        if len(self._arrival_s) >= self._max_names:
            self._arrival_s.popitem(last=False)
