"""Who may use the model, and when: a door for calls, and a turnstile for the steps of those inside.

`Room` decides which calls run: as many sequences, and as many tokens of cache, as the server was started for, in the
order in which they came. `Turnstile` lets one thread at a time use the model, again in order. Neither knows what a
call is about, and neither ever interrupts one.
"""

import asyncio
import threading
from collections import deque
from dataclasses import dataclass

from conclave.moe.errors import ContextExceeded, Overloaded, Stopping


@dataclass(frozen=True, slots=True)
class RoomSize:
    """What the server was started for."""

    sequences: int = 4
    kv_tokens: int = 8192  # of all running calls together: each reserves its prompt and its longest answer
    waiting: int = 32  # calls that stand in line; the next one is refused


class Room:
    """The calls that run and those that wait. Used from one event loop only."""

    def __init__(self, size: RoomSize) -> None:
        self._size = size
        self._free_sequences = size.sequences
        self._free_tokens = size.kv_tokens
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._closed = False

    @property
    def running(self) -> int:
        return self._size.sequences - self._free_sequences

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def kv_tokens(self) -> int:
        """Reserved by the running calls."""
        return self._size.kv_tokens - self._free_tokens

    async def enter(self, tokens: int) -> None:
        """Wait for room for a call of so many tokens. Raises ContextExceeded, Overloaded or Stopping."""
        if tokens > self._size.kv_tokens:
            raise ContextExceeded(
                f"prompt and longest answer are {tokens} tokens, and this server has a cache of {self._size.kv_tokens};"
                " ask for fewer (max_tokens)"
            )
        if self._closed:
            raise Stopping("the server is shutting down; ask again elsewhere")
        if not self._line and self._fits(tokens):
            self._take(tokens)
            return
        if len(self._line) >= self._size.waiting:
            raise Overloaded(f"{self.running} calls run and {len(self._line)} wait; ask again later")
        await self._stand_in_line(tokens)

    def leave(self, tokens: int) -> None:
        """Give back what `enter` took."""
        self._free_sequences += 1
        self._free_tokens += tokens
        self._call_next()

    def close(self) -> None:
        """Send away all who wait."""
        self._closed = True
        for _, turn in self._line:
            if not turn.done():
                turn.set_exception(Stopping("the server is shutting down; ask again elsewhere"))
        self._line.clear()

    async def _stand_in_line(self, tokens: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (tokens, turn)
        self._line.append(place)
        try:
            await turn
        except asyncio.CancelledError:
            if place in self._line:
                self._line.remove(place)
                self._call_next()  # the one behind may need less
            elif not turn.cancelled() and turn.exception() is None:
                self.leave(tokens)  # called in and gone in the same moment
            raise

    def _call_next(self) -> None:
        while self._line and self._fits(self._line[0][0]):
            tokens, turn = self._line.popleft()
            if not turn.done():
                self._take(tokens)
                turn.set_result(None)

    def _fits(self, tokens: int) -> bool:
        return self._free_sequences > 0 and self._free_tokens >= tokens

    def _take(self, tokens: int) -> None:
        self._free_sequences -= 1
        self._free_tokens -= tokens


class Turnstile:
    """A lock that threads get in the order in which they asked: one call cannot starve another."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._line: deque[threading.Event] = deque()
        self._taken = False

    def acquire(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            turn = threading.Event()
            self._line.append(turn)
        turn.wait()

    def release(self) -> None:
        """Hand it to the next in line, if there is one."""
        with self._guard:
            if self._line:
                self._line.popleft().set()
            else:
                self._taken = False

    def __enter__(self) -> "Turnstile":
        self.acquire()
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()
