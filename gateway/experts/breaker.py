"""Keeps calls away from a deployment that keeps failing, and lets one through now and then to see whether it recovered.

    closed  --failures in a row-->  open  --open_s-->  half_open: exactly one probe  --success-->  closed
                                     ^                                       |
                                     +----------------- failure -------------+

Decides nothing about which failures count: the pool does. No clock of its own.
"""

from enum import StrEnum
from typing import Final

PROBE_WAIT_S: Final = 1.0  # how soon to ask again while a probe is under way: it may end at any moment


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Each admitted call gets a ticket. A call admitted in an earlier state says nothing about the present one."""

    __slots__ = ("_failures", "_failures_to_open", "_open_s", "_opened_s", "_probing", "_ticket")

    def __init__(self, *, failures_to_open: int = 5, open_s: float = 15.0) -> None:
        if failures_to_open < 1 or open_s <= 0:
            raise ValueError("a breaker needs at least 1 failure to open, and more than 0 seconds to stay so")
        self._failures_to_open = failures_to_open
        self._open_s = open_s
        self._failures = 0
        self._opened_s: float | None = None
        self._probing = False
        self._ticket = 0

    def state(self, now_s: float) -> State:
        if self._opened_s is None:
            return State.CLOSED
        return State.OPEN if now_s < self._opened_s + self._open_s else State.HALF_OPEN

    def wait_s(self, now_s: float) -> float:
        """Seconds until a call may be admitted; 0.0 means now."""
        if self._opened_s is None:
            return 0.0
        if self._probing:
            return PROBE_WAIT_S
        return max(0.0, self._opened_s + self._open_s - now_s)

    def admit(self, now_s: float) -> int:
        """A ticket for one call, to come back by `succeeded`, `failed` or `abandoned`. Only while `wait_s` is 0."""
        if self.wait_s(now_s) > 0:
            raise ValueError("the breaker is open")
        if self._opened_s is not None:
            self._probing = True
            self._ticket += 1
        return self._ticket

    def succeeded(self, ticket: int) -> None:
        if ticket != self._ticket:
            return
        self._failures = 0
        if self._probing:
            self._probing, self._opened_s = False, None
            self._ticket += 1

    def failed(self, ticket: int, now_s: float) -> None:
        if ticket != self._ticket:
            return
        self._failures += 1
        if self._probing or self._failures >= self._failures_to_open:
            self._probing, self._opened_s, self._failures = False, now_s, 0
            self._ticket += 1

    def abandoned(self, ticket: int) -> None:
        """The call ended without a word on the deployment: its client left, or the request itself was bad."""
        if ticket == self._ticket and self._probing:
            self._probing = False
            self._ticket += 1
