"""What the loop imposes just now, as who admits calls asks for it: one dictionary, replaced as a whole.

An action that has ended counts no more, whether or not the loop has cleaned it away. Written by the loop's thread only.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final

from conclave.safety.detect.standing import Band
from conclave.safety.ooda.api import Action, Deed

BANDS: Final = frozenset({Deed.TIGHTEN, Deed.RAISE_SCAN})


class Sanctions:
    """The actions that are in force."""

    def __init__(self, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._bands: dict[str, tuple[Band, float]] = {}
        self._barred: dict[str, float] = {}

    def put(self, actions: Iterable[Action]) -> None:
        """These are in force, and no others."""
        bands: dict[str, tuple[Band, float]] = {}
        barred: dict[str, float] = {}
        for one in actions:
            if one.deed in BANDS:
                bands[one.subject] = max(bands.get(one.subject, (Band.OPEN, 0.0)), (one.band, one.until_s))
            elif one.deed is Deed.BLOCK_KEY:
                barred[one.subject] = one.until_s
        self._bands, self._barred = bands, barred

    def band(self, subject: str, tenant: str) -> Band:
        """The band that a caller is held to at least."""
        if not self._bands:
            return Band.OPEN
        now_s = self._now_s()
        found = (self._bands.get(subject), self._bands.get(f"tenant:{tenant}"))
        return max((band for band, until_s in filter(None, found) if now_s < until_s), default=Band.OPEN)

    def barred_s(self, subject: str) -> float:
        """For how long its calls are refused yet; 0 if they are not."""
        return max(0.0, self._barred[subject] - self._now_s()) if subject in self._barred else 0.0
