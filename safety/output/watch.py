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
