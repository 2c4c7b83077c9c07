"""The OODA loop: every few seconds from counters to actions, each with an entry in the record and an end.

It runs off the path of the calls, on a clock that is handed in. What it does is undone when callers in good standing
are refused more often since: the remedy must not be worse. In observe mode it only writes down what it would have done.
It forgets everything with the process, and never changes the policy.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from conclave.safety.ooda.api import DEFAULTS, Action, Attack, Incident, Limits, Observation, Step
from conclave.safety.ooda.decide import decide
from conclave.safety.ooda.observe import Window
from conclave.safety.ooda.orient import orient
from conclave.safety.ooda.sanctions import BANDS, Sanctions

SPARED_S: Final = 3600.0  # after an action was undone: it would only come back
MOST_SPARED: Final = 1_000
CHANCE: Final = 2.0  # standard deviations of a count (Poisson) that refusals may exceed what was expected, by chance

Mode = Literal["off", "observe", "on"]


@dataclass(frozen=True, slots=True)
class Orders:
    """How the loop is to work just now, as policy says."""

    mode: Mode = "observe"
    every_s: float = 10.0
    limits: Limits = DEFAULTS


class Loop:
    """`see` every call, `tick` every now and then: both from one thread."""

    def __init__(
        self,
        *,
        orders: Callable[[], Orders],
        sanctions: Sanctions,
        note: Callable[[Step], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._orders, self._sanctions, self._note, self._now_s = orders, sanctions, note, now_s
        self._window = Window()
        self._active: list[Action] = []
        self._spared: dict[tuple[Attack, str], float] = {}
        self._mode: Mode = "off"
        self._last_s = float("-inf")

    @property
    def active(self) -> tuple[Action, ...]:
        """What is in force, or in observe mode would be."""
        return tuple(self._active)

    def see(self, one: Observation) -> None:
        """Observe a call."""
        if self._orders().mode != "off":
            self._window.see(one)

    def tick(self) -> None:
        """One round, if it is time."""
        orders, now_s = self._orders(), self._now_s()
        if orders.mode != self._mode:
            self._change(orders.mode)
        if orders.mode == "off" or now_s < self._last_s + orders.every_s:
            return
        self._last_s = now_s
        self._window.forget(now_s - orders.limits.window_s)
        self._spared = {one: until_s for one, until_s in self._spared.items() if now_s < until_s}
        self._drop(lambda one: one.until_s <= now_s, "expired")
        self._roll_back(orders.limits, now_s)
        incidents = orient(self._window.subjects(), orders.limits)
        for action, incident in decide(incidents, self._active, orders.limits, now_s=now_s, spared=self._spared):
            self._impose(action, incident)
        self._enforce()

    def _impose(self, action: Action, incident: Incident) -> None:
        before = [one for one in self._active if (one.deed, one.subject) == (action.deed, action.subject)]
        self._active = [one for one in self._active if one not in before] + [action]
        did = "imposed" if self._mode == "on" else "would_impose"
        self._note(Step(did, action, incident.evidence, incident.requests))

    def _roll_back(self, limits: Limits, now_s: float) -> None:
        """Undo what was followed by refusals of callers in good standing."""
        for one in list(self._active):
            if one.deed not in BANDS or self._mode != "on":
                continue
            before = self._window.benign(one.subject, one.since_s - limits.window_s, one.since_s)
            after = self._window.benign(one.subject, one.since_s, float("inf"))
            expected = after.calls * (before.rate + limits.rise)
            if after.calls >= limits.rise_calls and after.blocked > expected + CHANCE * math.sqrt(expected):
                if len(self._spared) < MOST_SPARED:
                    self._spared[one.attack, one.subject] = now_s + SPARED_S
                evidence = {"calls": after.calls, "blocked": after.blocked, "before": before.blocked}
                self._active.remove(one)
                self._window.settle(one.subject)
                self._note(Step("rolled_back", one, evidence))

    def _change(self, mode: Mode) -> None:
        """What was imposed under another mode does not outlive it."""
        self._mode = mode
        self._drop(lambda _: True, "lifted")
        self._enforce()

    def _drop(self, over: Callable[[Action], bool], did: str) -> None:
        for one in [one for one in self._active if over(one)]:
            self._active.remove(one)
            self._window.settle(one.subject)
            self._note(Step(did, one))

    def _enforce(self) -> None:
        self._sanctions.put(self._active if self._mode == "on" else ())
