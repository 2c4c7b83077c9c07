"""One check on its way through the lines of a text: where it looks next, and what it has found near there."""

from dataclasses import dataclass, field

from conclave.safety.output.judging import Spot
from conclave.safety.output.triggers import Finder


@dataclass(slots=True)
class Watch:
    """One check on its way through the lines. `at` is where its next window begins, None while no trigger is near."""

    order: int
    finder: Finder
    seen: int = 0  # up to where triggers were looked for
    floor: int = 0  # from where on it may still cover
    at: int | None = None
    near: int = 0  # the last trigger
    cut: int = -1  # where the last window ended, in the middle of a line
    spots: list[Spot] = field(default_factory=list)  # that reach into the next window

    def grown(self, first: int, last: int) -> bool:
        """Whether what was found from `first` to `last` goes on with something that an earlier window found."""
        known = next((spot for spot in self.spots if spot.order == self.order and spot.end > first), None)
        if known is not None:
            known.end = max(known.end, last)
        return known is not None

    def run_on(self, behind: str) -> None:
        """What a window cut off goes on to the end of its word, if the check does not see its beginning any more.

        `behind` is the text from the cut on.
        """
        for spot in self.spots:
            if spot.end == self.cut:
                spot.end += next((at for at, letter in enumerate(behind) if letter.isspace()), len(behind))
