"""How many calls are worked on at once, and who waits: an overloaded gateway stays busy with what it can end.

What runs short is the event loop, not places: a thousand streams that wait for slow experts cost it next to nothing, a
hundred that speak at once may be all that it can do. So calls enter freely until the loop itself is late (`LAG_S`), and
`max_calls` bounds only the memory and the open files. Then they wait, each tenant in its own line, the lines in turn,
and enter as the loop keeps up. The queue is long, for bursts; where it has not been empty for as long as a call may
wait, it is kept to half a second. When it is full, the longest line's newest call goes: a tenant alone may use all of
it, and none can keep another out of it. It knows no request, and never cuts a call that is in work.
"""

import asyncio
import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from typing import Final

from conclave.gateway.errors import DeadlineExceeded, Overloaded

TICK_S: Final = 0.01  # between two looks at the loop, while calls come
IDLE_TICK_S: Final = 0.1  # while those that came only wait for their experts
LAG_S: Final = 0.05  # later than this, the loop has more to do than it can; docs/operations.md has the measurement
HOLD_S: Final = 0.2  # up to here who leaves is replaced: a loop may be late because of others, or of refusals
LEAST: Final = 64  # calls always may be in work: they alone cannot make it late, with 0.3 ms a turn for each
STANDING_S: Final = 0.5  # a queue that does not empty any more is kept so short: it is no burst
BATCH: Final = 32  # calls that enter at a look: at 1.4 ms a call, more than a core can do until the next
DECAY: Final = 0.5  # of what is known of the rate, for each second of waiting
FIRST_RATE: Final = 100.0  # calls a second, until one was measured
MEASURED_S: Final = 0.05  # of waiting, after which the rate is a measurement
LEAST_WAIT_S, MOST_WAIT_S = 0.1, 60.0  # of a retry-after: the OpenAI clients pass over more than a minute


class Waiter:
    """A call in a line. `place` is set when it may enter, or must go."""

    __slots__ = ("given_up_s", "place")

    def __init__(self, place: "asyncio.Future[None]", given_up_s: float) -> None:
        self.place = place
        self.given_up_s = given_up_s


class Room:
    """`enter` before the work of a call, `leave` after it. `max_wait_s`: how long a call may stand in line."""

    def __init__(
        self,
        *,
        max_calls: int = 4096,
        max_queue: int = 1024,
        max_wait_s: float = 5.0,
        now_s: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self.in_work = 0
        self.queued = 0
        self.refused = 0
        self._max_calls = max_calls
        self._max_queue = max_queue
        self._max_wait_s = max_wait_s
        self._now_s = now_s
        self._uniform = uniform
        self._lines: OrderedDict[str, deque[Waiter]] = OrderedDict()  # by tenant, the next first; none is empty
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        self._lag_s = 0.0
        self._came = False  # a call, since the last look
        self._empty_s = now_s()  # when the queue was empty last
        self._entering = 0  # from the queue, since the last look
        self._entered = 0.0  # before that, and the seconds that there was a queue: both fade
        self._waited_s = 0.0
        self._turned_away: dict[str, int] = {}
        self._counting = threading.Lock()  # counted on the event loop, collected on the followers' thread

    @property
    def full(self) -> bool:
        """Whether a newcomer can neither enter nor stand in line, unless another goes for it."""
        return self.queued >= self._places() and (self.queued > 0 or not self._vacant())

    @property
    def lag_s(self) -> float:
        """How late the event loop was when it was last looked at."""
        return self._lag_s

    def turn_away(self, tenant: str) -> Overloaded | None:
        """Whether there is no point in reading a call of this tenant: counted by tenant, not recorded one by one."""
        if not self.full or len(self._lines.get(tenant, ())) + 1 < self._longest():
            return None
        with self._counting:
            self._turned_away[tenant] = self._turned_away.get(tenant, 0) + 1
        self.refused += 1
        return self._overloaded()

    def collect(self) -> Mapping[str, int]:
        """How many calls of each tenant were turned away since this was asked last, by any thread."""
        with self._counting:
            counts, self._turned_away = self._turned_away, {}
        return counts

    def try_enter(self) -> bool:
        """Enter if nothing hinders it: nobody waits, there is a place, and the loop keeps up. Measured: 0.3 us."""
        if self.queued or not self._vacant():
            return False
        self.in_work += 1
        if not self._came:
            self._come()
        return True

    async def enter(self, tenant: str, deadline_s: float) -> None:
        """Enter, at once or in turn. Raises Overloaded, DeadlineExceeded."""
        if self.try_enter():
            return
        if self.full:
            self._make_room(tenant)
        now_s = self._now_s()
        if not self.queued:
            self._empty_s = now_s
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = Waiter(place, min(now_s + self._max_wait_s, deadline_s))
        self._lines.setdefault(tenant, deque()).append(waiter)
        self.queued += 1
        if not self._came:
            self._come()
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._forget(tenant, waiter)
            elif place.exception() is None:  # it was let in, and its client left in the same moment
                self.in_work -= 1
            raise
        except Overloaded:
            if self._now_s() >= deadline_s:
                raise DeadlineExceeded("the call's time was up while it waited for its turn") from None
            raise

    def leave(self) -> None:
        """The work of a call is done; the next may begin."""
        self.in_work -= 1
        if self.queued and (self._lag_s <= HOLD_S or self._vacant()):
            self._let_in(min(1, self._max_calls - self.in_work))

    def _vacant(self) -> bool:
        """Whether one more may enter: there is a place, and the loop was in time at the last look, and is now."""
        if self.in_work < LEAST:
            return self.in_work < self._max_calls
        return self.in_work < self._max_calls and self._lag_s <= LAG_S and self._now_s() - self._due_s <= LAG_S

    def _places(self) -> int:
        """How many may stand in line now: those who could enter in time at the rate that was measured."""
        if not self.queued:
            return self._max_queue
        is_burst = self._now_s() - self._empty_s < self._max_wait_s
        wait_s = self._max_wait_s if is_burst else STANDING_S
        return min(self._max_queue, max(LEAST, int(self._rate() * wait_s)))

    def _come(self) -> None:
        """The first call since the last look: the next look is soon."""
        self._came = True
        if self._timer is not None:
            if self._due_s - self._now_s() <= TICK_S:
                return
            self._timer.cancel()
        self._look_in(TICK_S)

    def _look_in(self, seconds: float) -> None:
        self._due_s = self._now_s() + seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        now_s = self._now_s()
        self._lag_s = max(0.0, now_s - self._due_s)
        if self.queued or self._entering:
            self._fade(now_s - self._due_s + TICK_S)
        if self.queued:
            self._send_home(now_s)
            most = BATCH if self._lag_s <= LAG_S else max(1, LEAST - self.in_work)
            self._let_in(min(most, self._max_calls - self.in_work))
        if self.in_work or self.queued:
            self._look_in(TICK_S if self._came or self.queued else IDLE_TICK_S)
        else:
            self._timer, self._lag_s = None, 0.0
        self._came = False

    def _fade(self, passed_s: float) -> None:
        kept = DECAY ** min(passed_s, 10.0)
        self._entered = self._entered * kept + self._entering
        self._waited_s = self._waited_s * kept + passed_s
        self._entering = 0

    def _let_in(self, most: int) -> None:
        """The lines in turn, one call each."""
        while most > 0 and self._lines:
            tenant, line = self._lines.popitem(last=False)
            waiter = line.popleft()
            if line:
                self._lines[tenant] = line
            self.queued -= 1
            if not waiter.place.done():
                waiter.place.set_result(None)
                self.in_work += 1
                self._entering += 1
                most -= 1

    def _send_home(self, now_s: float) -> None:
        """Those whose time is up; a line is in the order of its calls' times, or nearly."""
        for tenant, line in list(self._lines.items()):
            while line and line[0].given_up_s <= now_s:
                self._refuse(line.popleft())
            if not line:
                del self._lines[tenant]

    def _make_room(self, tenant: str) -> None:
        """Refuse the newest call of the longest line for one of a shorter line; raises Overloaded if this is it."""
        longest = max(self._lines, key=lambda name: len(self._lines[name]), default=tenant)
        line = self._lines.get(longest)
        if line is None or len(self._lines.get(tenant, ())) + 1 >= len(line):
            self.refused += 1
            raise self._overloaded()
        self._refuse(line.pop())
        if not line:
            del self._lines[longest]

    def _refuse(self, waiter: Waiter) -> None:
        self.queued -= 1
        if not waiter.place.done():
            self.refused += 1
            waiter.place.set_exception(self._overloaded())

    def _forget(self, tenant: str, waiter: Waiter) -> None:
        line = self._lines.get(tenant)
        if line is not None and waiter in line:
            line.remove(waiter)
            self.queued -= 1
            if not line:
                del self._lines[tenant]

    def _longest(self) -> int:
        return max(map(len, self._lines.values()), default=0)

    def _rate(self) -> float:
        """Calls a second that enter while there is a queue."""
        rate = self._entered / self._waited_s if self._waited_s >= MEASURED_S else FIRST_RATE
        return max(rate, 1 / MOST_WAIT_S)

    def _overloaded(self) -> Overloaded:
        """When to come back: once all who wait now have entered, at the measured rate; spread over as long again."""
        empty_s = max(self.queued, 1) / self._rate()
        wait_s = min(max(empty_s * (1 + self._uniform()), LEAST_WAIT_S), MOST_WAIT_S)
        return Overloaded("the gateway has more calls than it can serve now; try again later", retry_after_s=wait_s)
