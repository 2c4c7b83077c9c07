"""Which numbers of use were used already: here in process; the Protocol is what a shared store would offer.

It fails closed. What it cannot know it calls `unsure`: a number from before it began, or from a time that it has begun
to forget. It forgets nothing that could still be used, so when it is full it takes nothing new.
"""

import heapq
import time
from collections.abc import Callable
from typing import Final, Literal, Protocol, TypeAlias

MOST: Final = 200_000  # at 60 s and the longest life of 120 s 1,666 signed calls a second; about 40 MB

Use: TypeAlias = Literal["first", "again", "unsure", "full"]


class Nonces(Protocol):
    async def use(self, name: str, *, by: str, from_s: float, until_s: float) -> Use:
        """Whether this is the name's first use. It may be used from `from_s` to `until_s`, seconds since the epoch.

        `by` is who uses it: of one user a later name may live longer than an earlier one, if policy made it so.
        """
        ...


class LocalNonces:
    """The numbers that were used, until nobody could use them any more. A lookup and a heap, about 2 us a call."""

    def __init__(self, *, now: Callable[[], float] = time.time, most: int = MOST) -> None:
        self._now = now
        self._most = most
        self._used: set[str] = set()
        self._ends: list[tuple[float, str, str, float]] = []
        self._began_s = int(now())  # whole seconds, as envelopes have them
        self._forgot_s = float("-inf")  # everything that ended by then may have been forgotten: clocks step back
        self._past: dict[str, float] = {}  # by user, and what began by then: names may live longer from now on

    def __len__(self) -> int:
        return len(self._used)

    async def use(self, name: str, *, by: str, from_s: float, until_s: float) -> Use:
        if name in self._used:
            return "again"
        self._forget(self._now())
        if from_s < self._began_s or until_s <= self._forgot_s or from_s <= self._past.get(by, float("-inf")):
            return "unsure"
        if len(self._used) >= self._most:
            return "full"
        self._used.add(name)
        heapq.heappush(self._ends, (until_s, name, by, from_s))
        return "first"

    def _forget(self, now_s: float) -> None:
        while self._ends and self._ends[0][0] < now_s:
            self._forgot_s, name, by, from_s = heapq.heappop(self._ends)
            self._used.discard(name)
            self._past[by] = max(from_s, self._past.get(by, from_s))
