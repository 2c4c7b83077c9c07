"""What an admitted call may do: the values that admission hands to the rest of the way. Nothing later widens them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from conclave.safety.detect.standing import BASE, Band

NO_MASKS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType({})
NO_CAPS: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Scope:
    """What a key reaches: `experts` by name, or None for all; `named` are its scopes of the policy, None: it has none.

    What the named scopes come to is for the policy in force to say (`policy/scopes.py`): of one call then `under` are
    those that allow it, `masks` the only inner experts that a local mixture-of-experts model may use, by its name,
    `caps` the most that it may use for a token, and `collections` and `tags` all that may be looked up in; None: as for
    everybody.
    """

    experts: frozenset[str] | None = None
    named: tuple[str, ...] | None = None
    under: tuple[str, ...] = ()
    masks: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: NO_MASKS)
    collections: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    caps: Mapping[str, int] = field(default_factory=lambda: NO_CAPS)

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

    `key_id` is None for the anonymous caller on loopback; `rate` is None where no limit is set. `standing` is how far
    the key is trusted, 0..1, and `imposed` the band that it is held to whatever that is.
    """

    tenant: str
    key_id: str | None
    scope: Scope
    deadline_s: float
    rate: RateState | None = None
    standing: float = BASE
    imposed: Band = Band.OPEN
