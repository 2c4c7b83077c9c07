"""What tests of Conclave, and of applications on it, may build on: `FakeExpert`, `FakeClock`. Never runs in service."""

import asyncio
import math

from conclave.gateway.experts.fake import FakeExpert

__all__ = ["FakeClock", "FakeExpert"]


class FakeClock:
    """A clock that only `advance` moves; who sleeps on it wakes when its time has come."""

    def __init__(self, start_s: float = 1000.0) -> None:
        self._now_s = start_s
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now_s(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move on, and wake those whose time has come, the earliest first; they run at the caller's next `await`."""
        if not (seconds >= 0 and math.isfinite(seconds)):
            raise ValueError("a clock moves forward, by a finite number of seconds")
        self._now_s += seconds
        due = sorted((one for one in self._sleepers if one[0] <= self._now_s), key=lambda one: one[0])
        self._sleepers = [one for one in self._sleepers if one[0] > self._now_s]
        for _, sleeper in due:
            if not sleeper.done():
                sleeper.set_result(None)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now_s + seconds, sleeper))
        await sleeper
