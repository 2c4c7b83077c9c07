"""The checks of requests by their names in the policy. A check is made when a version is published that uses it."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Final

from conclave.safety.api import Check
from conclave.safety.detect.hidden import HiddenCheck
from conclave.safety.detect.learned import ORIGINS, Heads, Ids, LearnedCheck
from conclave.safety.detect.pii import PiiCheck
from conclave.safety.detect.secrets import SecretsCheck

RULES: Final[Mapping[str, Callable[[], Check]]] = {"hidden": HiddenCheck, "secrets": SecretsCheck, "pii": PiiCheck}
NAMES: Final = (*RULES, *ORIGINS)


class Checks:
    """Makes checks. `ids` turns a text into the tokens that the learned ones were trained on."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids

    @cached_property
    def _heads(self) -> Heads:
        return Heads.load(self._ids)

    def make(self, name: str, *, threshold: float | None = None) -> Check:
        """The check of that name; a learned one at its own threshold, if no other is given. Raises KeyError."""
        if name in RULES:
            return RULES[name]()
        heads = self._heads
        return LearnedCheck(name, heads, heads.threshold(name) if threshold is None else threshold)
