"""Runs the followers: one daemon thread reads the journal from the disk and hands its rows on. Never on the event loop.

A follower that fails is alone with it: it is tried again later with the same rows, and the others go on. The thread
also signs the journal when that is due, and calls what else must happen now and then (`ticks`).
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from conclave.gateway.followers.api import Follower
from conclave.gateway.followers.spool import BATCH_ROWS, Place, Spool
from conclave.gateway.journal import Journal
from conclave.safety.audit.segment import is_held

POLL_S: Final = 0.5  # between two looks at the journal
PAST_EVERY_S: Final = 60.0  # between two looks for chains whose process has ended
FIRST_WAIT_S: Final = 0.5  # after a failure; doubled each time
LONGEST_WAIT_S: Final = 30.0

log = structlog.get_logger()


class FollowerThread:
    """Start it once the journal is open; at stop close the journal first, so that its closing row is followed too."""

    def __init__(
        self,
        journal: Journal,
        followers: Sequence[Follower],
        *,
        ticks: Sequence[Callable[[], None]] = (),
        poll_s: float = POLL_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        spool = Spool(journal.folder)
        self._journal = journal
        self._courses = [Course(follower, journal.chain, spool, now_s) for follower in followers]
        self._ticks = ticks
        self._poll_s = poll_s
        self._now_s = now_s
        self._stopping = threading.Event()
        self._stop_by_s = float("inf")
        self._thread = threading.Thread(target=self._run, name="followers", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, limit_s: float) -> bool:
        """Let the followers finish what is written, for so long at most; whether they did. Blocks."""
        self._stop_by_s = self._now_s() + limit_s
        self._stopping.set()
        self._thread.join(limit_s)
        return not self._thread.is_alive() and not any(course.behind for course in self._courses)

    def _run(self) -> None:
        wait_s = self._poll_s
        while not self._stopping.wait(wait_s):
            wait_s = self._poll_s if self._round() < BATCH_ROWS else self._poll_s / 10  # behind: more is there
        for course in self._courses:
            course.hurry()
        while self._round() and self._now_s() < self._stop_by_s:
            pass

    def _round(self) -> int:
        """One look; the most rows that a follower got."""
        for tick in self._ticks:
            _safely(tick, doing="tick")
        if self._journal.sign_due:
            _safely(self._journal.sign_head, doing="sign")
        return max([course.step() for course in self._courses], default=0)


class Course:
    """How far one follower is. `behind` says that its last try failed."""

    def __init__(self, follower: Follower, chain: str, spool: Spool, now_s: Callable[[], float]) -> None:
        self.behind = False
        self._follower = follower
        self._chain = chain
        self._spool = spool
        self._now_s = now_s
        self._position: dict[str, int] | None = None  # None: to be asked again
        self._places: dict[str, Place] = {}
        self._done: set[str] = set()  # chains whose process has ended, followed to their end
        self._looked_s = float("-inf")  # for chains of the past
        self._retry_s = float("-inf")
        self._wait_s = FIRST_WAIT_S

    def hurry(self) -> None:
        """Try again at once: it is the last chance."""
        self._retry_s = float("-inf")

    def step(self) -> int:
        """Hand on what is new, a batch of this chain and of a past one at most; how many rows that was."""
        if self._now_s() < self._retry_s:
            return 0
        try:
            if self._position is None:
                self._position = dict(self._follower.position())
                self._places.clear()
            count = self._follow(self._chain, self._position)
            if self._follower.past:
                count += self._follow_past(self._position)
        except Exception as error:  # noqa: BLE001  the edge of a follower: whatever it raises is its own
            self._fail(error)
            return 0
        if self.behind:
            log.info("follower.recovered", follower=self._follower.name)
        self.behind, self._wait_s = False, FIRST_WAIT_S
        return count

    def _fail(self, error: Exception) -> None:
        """Wait longer each time; the position is asked again, because a part may have been kept."""
        log.warning(
            "follower.failed", follower=self._follower.name, error=type(error).__name__, retry_in_s=self._wait_s
        )
        self.behind, self._position = True, None
        self._retry_s = self._now_s() + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    def _follow(self, chain: str, position: dict[str, int]) -> int:
        """The next batch of a chain; how many rows there were to read."""
        kept = position.get(chain, -1)
        place = self._places.get(chain)
        for part in self._spool.segments(chain, place.first if place else kept + 1):
            here = place is not None and place.first == part.first
            batch = self._spool.read(part, place.offset if place and here else 0)
            self._places[chain] = batch.end
            if not batch.rows:
                continue
            rows = [row for row in batch.rows if row.seq > kept]
            if rows:
                self._follower.follow(rows)
                position[chain] = rows[-1].seq
            return len(batch.rows)
        return 0

    def _follow_past(self, position: dict[str, int]) -> int:
        """Chains whose process has ended without handing on all its rows (kill -9): one batch a round."""
        if self._now_s() < self._looked_s + PAST_EVERY_S:
            return 0
        for chain, parts in self._spool.chains().items():
            if chain == self._chain or chain in self._done or is_held(parts[-1].path):
                continue
            if self._spool.last_row(parts) > position.get(chain, -1) and (count := self._follow(chain, position)):
                return count
            self._done.add(chain)
        self._looked_s = self._now_s()
        return 0


def _safely(act: Callable[[], None], *, doing: str) -> None:
    try:
        act()
    except Exception as error:  # noqa: BLE001  the thread's edge: signing or a tick is tried again at the next look
        log.error("followers.act_failed", doing=doing, error=type(error).__name__)
