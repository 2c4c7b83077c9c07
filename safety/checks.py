"""The checks of requests by their names in the policy. Each is made when a version is published that uses it."""

from collections.abc import Callable, Mapping
from typing import Final

from conclave.safety.api import Check
from conclave.safety.detect.hidden import HiddenCheck

CHECKS: Final[Mapping[str, Callable[[], Check]]] = {"hidden": HiddenCheck}
