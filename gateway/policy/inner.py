"""How a request may have a local mixture-of-experts model work: its own `conclave.moe`, as far as its scope goes.

Reads and bounds what the request says and joins it with what the scope says, which always wins. Which policies a server
offers and what settings they have is that server's word: it refuses what it does not know.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from conclave.gateway.errors import Forbidden, InvalidRequest

FIELD: Final = "conclave.moe"
KEYS: Final = ("policy", "experts_max", "experts")
MOST_EXPERTS: Final = 4096  # of a layer, as `conclave moe serve` takes them
MOST_NUMBER: Final = 65_535
NAME_CHARS: Final = 64
SETTINGS: Final = 16  # of a routing policy
SETTING_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class Inner:
    """What works inside for one call: a routing policy, the most experts of a token, the only experts.

    None: as the server has it.
    """

    policy: str | Mapping[str, Any] | None = None
    experts_max: int | None = None
    experts: tuple[int, ...] | None = None

    @property
    def policy_name(self) -> str | None:
        return self.policy if self.policy is None or isinstance(self.policy, str) else str(self.policy["name"])

    def within(self, mask: tuple[int, ...] | None, experts_max: int | None) -> "Inner":
        """No more than a scope's mask and its most experts; raises Forbidden where the mask leaves nothing of it."""
        caps = [most for most in (self.experts_max, experts_max) if most is not None]
        experts = self.experts if mask is None else mask
        if mask is not None and self.experts is not None:
            asked = set(self.experts)
            experts = tuple(number for number in mask if number in asked)
            if not experts:
                words = "none of these inner experts is within the scope of this call"
                raise Forbidden(words, param=f"{FIELD}.experts", code="outside_scope")
        return Inner(self.policy, min(caps, default=None), experts)

    def sent(self) -> dict[str, Any]:
        """As the server takes it; empty where nothing is said."""
        said = {"policy": self.policy, "experts_max": self.experts_max, "experts": self.experts}
        return {name: value for name, value in said.items() if value is not None}


AS_IT_IS: Final = Inner()


def inner_of(body: Mapping[str, Any]) -> Inner:
    """What the request says itself. Raises InvalidRequest that names the place."""
    own = body.get("conclave")
    said = own.get("moe") if isinstance(own, dict) else None
    if said is None:
        return AS_IT_IS
    if not isinstance(said, dict):
        raise InvalidRequest(f"{FIELD} must be an object with some of {', '.join(KEYS)}", param=FIELD)
    for key in said:
        if key not in KEYS:
            close = difflib.get_close_matches(key.casefold(), KEYS, n=1)
            words = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(KEYS)}"
            raise InvalidRequest(f"unknown key {key[:NAME_CHARS]!r} in {FIELD}; {words}", param=FIELD)
    return Inner(_policy(said.get("policy")), _experts_max(said.get("experts_max")), _experts(said.get("experts")))


def _policy(said: Any) -> Any:
    place = f"{FIELD}.policy"
    name = said.get("name") if isinstance(said, dict) else said
    if said is None:
        return None
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS:
        words = f'{place} must be the name of a routing policy, or an object such as {{"name": "topp", "p": 0.5}}'
        raise InvalidRequest(words, param=place)
    if isinstance(said, str):
        return said
    if len(said) > SETTINGS or not all(len(key) <= SETTING_CHARS and _is_setting(said[key]) for key in said):
        words = f"the settings in {place} are numbers, short words, true or false, and at most {SETTINGS}"
        raise InvalidRequest(words, param=place)
    return said


def _is_setting(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= SETTING_CHARS
    return value is None or isinstance(value, bool | int | float)


def _experts_max(said: Any) -> int | None:
    if said is None or (_is_whole(said) and 1 <= said <= MOST_EXPERTS):
        return said  # type: ignore[no-any-return]  # an int, by _is_whole
    place = f"{FIELD}.experts_max"
    raise InvalidRequest(f"{place} must be a whole number from 1 to {MOST_EXPERTS}", param=place)


def _experts(said: Any) -> tuple[int, ...] | None:
    if said is None:
        return None
    if (
        isinstance(said, list)
        and 0 < len(said) <= MOST_EXPERTS
        and all(_is_whole(number) and 0 <= number <= MOST_NUMBER for number in said)
    ):
        return tuple(said)
    place = f"{FIELD}.experts"
    raise InvalidRequest(f"{place} must be a list of the inner experts' numbers, which begin at 0", param=place)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
