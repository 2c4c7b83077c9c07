"""A conversation that climbs, turn by turn, towards what an operator does not serve (crescendo).

Each turn alone may be harmless; what shows is the way. A turn's closeness to a topic is the cosine of its vector and
the nearest of the topic's examples, less its closeness to what the application is for. What exceeds a reference is
added up over the turns (Page's cumulative sum, Biometrika 1954), so that one close turn is not enough, and a turn far
away takes from the sum. A static encoder hears words and not intent: it advises, and honest talk about a topic at
length looks the same.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from conclave.safety.api import Finding, Segment, Severity
from conclave.safety.detect.turns import JOINED, Turn, last_turns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Encode = Callable[[Sequence[str]], NDArray[np.float32]]

NAME: Final = "crescendo"
MOST_TURNS: Final = 12
LEAST_TURNS: Final = 3
REFERENCE: Final = 0.5  # closeness that adds nothing; of short questions about anything else 3 in 100 are closer
THRESHOLD: Final = 0.3  # of the sum: two turns as close as an example's paraphrase
RISES: Final = 0.1  # from the first of the turns to the last, at least: otherwise it is a subject and no climb
REMEMBERED: Final = 4_096  # turns: what they are close to


class Crescendo:
    """Topics as their examples' vectors. `scope`: examples of what the application is for."""

    def __init__(
        self,
        encode: "Encode",
        topics: Mapping[str, Sequence[str]],
        scope: Sequence[str] = (),
        *,
        threshold: float = THRESHOLD,
    ) -> None:
        self._encode = encode
        self._names = tuple(topics)
        self._topics = [encode(list(examples)) for examples in topics.values()]  # each [examples, dimensions]
        self._scope = encode(list(scope)) if scope else None
        self._threshold = threshold
        self._known: OrderedDict[bytes, tuple[float, ...]] = OrderedDict()
        self._lock = threading.Lock()  # large requests are looked at in threads

    @property
    def name(self) -> str:
        return NAME

    def inspect(self, segments: Sequence[Segment]) -> tuple[Finding, ...]:
        """The finding in a request's user turns, at the place of the last: at most one."""
        turns = last_turns(segments, MOST_TURNS)
        if len(turns) < LEAST_TURNS:
            return ()
        closeness = [self._closeness(turn.text) for turn in turns]
        sums = [climbed([one[topic] for one in closeness]) for topic in range(len(self._names))]
        best = max(sums, default=0.0)
        if best < self._threshold:
            return ()
        return (_finding(turns[-1], best / (best + self._threshold)),)

    def _closeness(self, text: str) -> tuple[float, ...]:
        """To each topic, -1..1."""
        name = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        with self._lock:
            known = self._known.get(name)
            if known is not None:
                self._known.move_to_end(name)
                return known
        vector = self._encode([text])[0]  # [dimensions]
        near = float((self._scope @ vector).max()) if self._scope is not None else 0.0
        found = tuple(
            closest if (closest := float((examples @ vector).max())) > near else 0.0 for examples in self._topics
        )
        with self._lock:
            self._known[name] = found
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return found


def climbed(closeness: Sequence[float]) -> float:
    """The cumulative sum after the last turn; 0 if that turn is no part of a climb."""
    total, first = 0.0, 0.0
    for one in closeness:
        if total == 0.0:
            first = min(closeness[0], one)
        total = max(0.0, total + one - REFERENCE)
    return total if closeness and closeness[-1] > REFERENCE and closeness[-1] - first >= RISES else 0.0


def _finding(last: Turn, confidence: float) -> Finding:
    return Finding(
        check=NAME,
        kind=NAME,
        severity=Severity.MEDIUM,
        confidence=confidence,
        place=last.place,
        start=0,
        end=last.chars,
        view=JOINED,
        remedy="ask for what you need in a new conversation",
    )
