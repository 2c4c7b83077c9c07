"""Carries what one call's thread writes to the event loop that sends it, and the client's leaving back.

A bounded number of pieces may be on the way: a client that reads slowly makes its own thread wait, without the model.
It decides nothing about content.
"""

import asyncio
import threading
from dataclasses import dataclass
from typing import Literal, TypeAlias

from conclave.moe.errors import DeadlineExceeded, ExpertError

BUFFERED: int = 64  # pieces: a second or so of a fast model, a few kilobytes


@dataclass(frozen=True, slots=True)
class TokenLikely:
    """A token as text with its log-probability, and the likeliest tokens in its place."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of the answer, ready to be shown."""

    text: str
    likely: tuple[TokenLikely, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What the call cost. `experts` are expert runs over all layers, in prompt and answer."""

    prompt_tokens: int
    completion_tokens: int
    experts_per_token: float
    flops_saved: int


@dataclass(frozen=True, slots=True)
class End:
    """The answer is whole."""

    reason: Literal["stop", "length"]
    usage: Usage


Event: TypeAlias = Piece | End


class Handoff:
    """Written by one thread, read by one task."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline  # on the monotonic clock
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | ExpertError] = asyncio.Queue()
        self._credits = threading.Semaphore(BUFFERED)
        self._left = threading.Event()

    @property
    def left(self) -> bool:
        """Whether the client has gone: nothing more is wanted."""
        return self._left.is_set()

    def leave(self) -> None:
        """The reader wants no more. A plain call; from any thread."""
        self._left.set()
        self._credits.release()  # a writer that waits looks again

    def write(self, event: Event, *, now: float) -> None:
        """From the thread: hand over one event. Raises DeadlineExceeded if the reader does not take them in time."""
        if not self._credits.acquire(timeout=max(0.0, self.deadline - now)):
            raise DeadlineExceeded("the answer was not read within the time that a call may take")
        if not self.left:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def fail(self, error: ExpertError) -> None:
        """From the thread: the call has failed; this is always taken."""
        if not self.left:
            self._loop.call_soon_threadsafe(self._events.put_nowait, error)

    async def read(self) -> Event:
        """The next event. Raises the ExpertError that the call failed with."""
        event = await self._events.get()
        self._credits.release()
        if isinstance(event, ExpertError):
            raise event
        return event
