"""Ends one await when its time is up, without ending what was awaited or the task that waits.

`asyncio.timeout` sets and drops a timer around each await (6-8 us), and a stream waits for each of its chunks. An alarm
keeps one timer for all of them and looks at the clock only when that fires. It never surrounds a `yield`: the time
limit is over when `until` returns.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Alarm:
    """One at a time may wait. Meant for waits that lose nothing when they are cancelled (a read from a buffer)."""

    __slots__ = ("_at_s", "_now_s", "_rang", "_rings_s", "_sleeper", "_timer")

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._at_s = 0.0  # when the present wait is up
        self._rings_s = 0.0  # when the timer fires: at that moment or before
        self._timer: asyncio.TimerHandle | None = None
        self._sleeper: asyncio.Task[object] | None = None
        self._rang = False

    async def until(self, at_s: float, wait: Callable[[], Awaitable[T]]) -> T | None:
        """What `wait()` gives, or None if `at_s` (by the clock handed in) or a `ring` comes first."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an alarm needs a task to wake")
        cancelling = task.cancelling()
        self._sleeper, self._at_s = task, at_s
        if self._timer is None or at_s < self._rings_s:
            self._set(at_s)
        try:
            return await wait()
        except asyncio.CancelledError:
            if self._rang and task.cancelling() <= cancelling + 1:  # ours alone, nobody else cancels the task
                return None
            raise
        finally:
            self._sleeper = None
            if self._rang:
                self._rang = False
                task.uncancel()

    def ring(self) -> None:
        """End the present wait now, if there is one."""
        if self._sleeper is not None and not self._rang:
            self._rang = True
            self._sleeper.cancel()

    def stop(self) -> None:
        """End the present wait and drop the timer."""
        self.ring()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_s = at_s
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at_s - self._now_s()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._sleeper is None:
            return
        if self._now_s() < self._at_s:
            self._set(self._at_s)
        else:
            self.ring()
