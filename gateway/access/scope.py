"""What an admitted call may do: the values that admission hands to the rest of the way. Nothing later widens them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scope:
    """What a key reaches: `experts` by name, or None for all."""

    experts: frozenset[str] | None = None

    def reaches(self, expert: str) -> bool:
        return self.experts is None or expert in self.experts


@dataclass(frozen=True, slots=True)
class RateState:
    """The request limit as the client is told it: requests a minute, what is left, seconds until all of it is back."""

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Grant:
    """Who calls, what they may reach, and until when (`deadline_s`, monotonic clock).

    `key_id` is None for the anonymous caller on loopback; `rate` is None where no limit is set.
    """

    tenant: str
    key_id: str | None
    scope: Scope
    deadline_s: float
    rate: RateState | None = None
