"""One expert's deployments: whose turn it is, and which of them are out for now (rate limited, or failing).

Turns follow the weights by smooth weighted round robin (nginx, 2012): deterministic, and a heavy deployment's turns are
spread rather than bunched. Sends nothing and retries nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from conclave.gateway.errors import ExpertFailed
from conclave.gateway.experts.api import Expert
from conclave.gateway.experts.breaker import Breaker, State

COOL_S: Final = 5.0  # after a 429 that does not say how long
MAX_COOL_S: Final = 60.0  # no deployment is left out for longer on one answer's word
FAILURES: Final = frozenset({"connect", "first_byte", "stalled", "cut", "malformed"})  # and HTTP 5xx


@dataclass(frozen=True, slots=True)
class Deployment:
    """One way to reach an expert: an account, a server. `label` is stable and stands in records and metrics."""

    label: str
    expert: Expert
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"the weight of deployment {self.label!r} must be more than 0")


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """For readiness and metrics. `cooling_s` is how long the deployment is still left out after a 429."""

    expert: str
    label: str
    breaker: State
    cooling_s: float


class Seat:
    """A deployment with what is known of its health."""

    __slots__ = ("breaker", "cools_until_s", "credit", "deployment")

    def __init__(self, deployment: Deployment, breaker: Breaker) -> None:
        self.deployment = deployment
        self.breaker = breaker
        self.credit = 0.0
        self.cools_until_s = 0.0

    def wait_s(self, now_s: float) -> float:
        return max(self.cools_until_s - now_s, self.breaker.wait_s(now_s), 0.0)

    def failed(self, kind: str, ticket: int, now_s: float, *, server_error: bool, retry_after_s: float | None) -> None:
        """What one call's failure says of the deployment, if anything. `server_error` is HTTP 5xx."""
        if kind == "rate_limited" or (server_error and retry_after_s):
            self.cools_until_s = now_s + min(retry_after_s or COOL_S, MAX_COOL_S)
        if kind in FAILURES or server_error:
            self.breaker.failed(ticket, now_s)
        else:
            self.breaker.abandoned(ticket)


class Table:
    """The seats of one expert."""

    def __init__(self, seats: Sequence[Seat], *, transport_retries: int = 0) -> None:
        labels = [seat.deployment.label for seat in seats]
        if len(set(labels)) != len(labels):
            raise ValueError(f"two deployments of one expert share a label: {', '.join(sorted(labels))}")
        self.seats = tuple(seats)
        self.transport_retries = transport_retries

    def next(self, now_s: float, tried: Sequence[Seat] = ()) -> Seat | None:
        """Whose turn it is among those that may be asked, those not `tried` yet first. None if all are out."""
        ready = [seat for seat in self.seats if seat.wait_s(now_s) <= 0]
        if tried:
            ready = [seat for seat in ready if seat not in tried] or ready
        if len(ready) < 2:  # noqa: PLR2004
            return ready[0] if ready else None
        for seat in ready:
            seat.credit += seat.deployment.weight
        chosen = max(ready, key=_credit)
        chosen.credit -= sum(seat.deployment.weight for seat in ready)
        return chosen

    def refusal(self, now_s: float) -> ExpertFailed:
        """Why nobody is asked, and when it may be worth another try."""
        soonest_s = min((seat.wait_s(now_s) for seat in self.seats), default=None)
        if any(seat.breaker.wait_s(now_s) > 0 for seat in self.seats):
            return ExpertFailed("the expert failed too often just now", kind="breaker_open", retry_after_s=soonest_s)
        return ExpertFailed("the expert has no deployment to ask", kind="no_deployment", retry_after_s=soonest_s)


def _credit(seat: Seat) -> float:
    return seat.credit
