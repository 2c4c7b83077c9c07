"""Topics that users may not ask about, or may only ask about, each known by a few examples.

A topic is a direction among the vectors of texts: a linear discriminant (Fisher 1936, its covariance shrunk towards a
ball) from texts about all sorts of things, the background, to the examples. How far a text must lie in that direction
is read off background texts that the direction was not learned from: so many of them may be taken for the topic, and no
more. The vectors are handed in; what they are made of is not for this room to know.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from conclave.safety.api import Finding, Origin, Severity, View

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME: Final = "topics"
OFF_SCOPE: Final = "off_scope"  # the kind of what is about none of the topics that are allowed
LEAST_EXAMPLES: Final = 8
DENIED_SHARE: Final = 0.01  # of the background may be taken for a denied topic,
ALLOWED_SHARE: Final = 0.05  # and for an allowed one: a wrong refusal is worse there than a text that slips through
SHRINKAGE: Final = 3.0  # of the covariance towards its mean variance
WINDOW_CHARS: Final = 600  # a longer text is judged in windows, so that a topic is not watered down
MOST_WINDOWS: Final = 32
REMEDY: Final = "Ask about something else: this gateway's policy leaves the topic out."

Encode: TypeAlias = Callable[[Sequence[str]], "NDArray[np.float32]"]


class TopicError(ValueError):
    """A topic that cannot be learned; `topic` is its name."""

    def __init__(self, topic: str, message: str) -> None:
        super().__init__(f"topic {topic!r}: {message}")
        self.topic = topic
        self.words = message


@dataclass(frozen=True, slots=True)
class Space:
    """Where texts lie: `encode` makes vectors of texts, `background` [texts, dimensions] are those of many others."""

    encode: Encode
    background: "NDArray[np.float16]"


@dataclass(frozen=True, slots=True)
class Topic:
    """A direction, and how far background texts reach in it, in order."""

    direction: "NDArray[np.float32]"  # [dimensions]
    reached: "NDArray[np.float32]"  # [texts]

    def start(self, share: float) -> float:
        """From where only this share of the background lies."""
        return float(self.reached[min(len(self.reached) - 1, int(len(self.reached) * (1 - share)))])


def learned(space: Space, topics: Mapping[str, Sequence[str]]) -> dict[str, Topic]:
    """Each topic from its examples. Raises TopicError for too few, or for examples without a known word."""
    import numpy as np  # noqa: PLC0415  only where a policy has topics

    others = np.asarray(space.background, dtype=np.float32)  # [texts, dimensions]
    taught, held = others[::2], others[1::2]
    mean = taught.mean(axis=0)
    spread = (taught - mean).T @ (taught - mean) / np.float32(len(taught))  # [dimensions, dimensions]
    spread += np.float32(SHRINKAGE * spread.trace() / len(mean)) * np.eye(len(mean), dtype=np.float32)
    found = {}
    for name, examples in topics.items():
        distinct = sorted({text.strip() for text in examples} - {""})
        if len(distinct) < LEAST_EXAMPLES:
            raise TopicError(name, f"{len(distinct)} different examples; it takes {LEAST_EXAMPLES} at least")
        vectors = space.encode(distinct)  # [examples, dimensions]
        if not vectors.any(axis=1).all():
            raise TopicError(name, "one of its examples has no word that is known; leave it out")
        direction = np.linalg.solve(spread, vectors.mean(axis=0) - mean).astype(np.float32)
        found[name] = Topic(direction, np.sort(held @ direction))
    return found


class TopicsCheck:
    """Judges what users say, as it looks; encoded texts are for other checks. Off unless a policy names topics."""

    name = NAME
    origins = frozenset({Origin.USER})
    decodes = False

    def __init__(
        self, space: Space, *, deny: Mapping[str, Sequence[str]], allow_only: Mapping[str, Sequence[str]]
    ) -> None:
        """Learns the topics; raises TopicError."""
        self._encode = space.encode
        self._denied = learned(space, deny)
        self._allowed = learned(space, allow_only)

    def inspect(self, view: View) -> Sequence[Finding]:
        """What it is about that it may not be, the clearest topic first; or that it is off scope."""
        if not (self._denied or self._allowed):
            return ()
        pieces = windows(view.segment.folded)
        vectors = self._encode(pieces)  # [windows, dimensions]
        if not vectors.any():
            return ()  # nothing that anybody could read
        found = []
        for name, topic in self._denied.items():
            start = topic.start(DENIED_SHARE / len(pieces))  # each window is another chance to be wrong
            beyond = float((vectors @ topic.direction).max()) - start
            if beyond > 0:
                found.append((beyond / (abs(start) + 1e-6), self._finding(view, name, Severity.MEDIUM)))
        found.sort(key=lambda one: -one[0])
        if self._allowed and not self._is_allowed(vectors):
            return [*(one for _, one in found), self._finding(view, OFF_SCOPE, Severity.LOW)]
        return [one for _, one in found]

    def _is_allowed(self, vectors: "NDArray[np.float32]") -> bool:
        """Whether any part of it is about a topic that is allowed: what stands beside it is left to the expert."""
        return any(
            float((vectors @ topic.direction).max()) > topic.start(ALLOWED_SHARE) for topic in self._allowed.values()
        )

    def _finding(self, view: View, kind: str, severity: Severity) -> Finding:
        return Finding(
            check=NAME,
            kind=f"topic.{kind}",
            severity=severity,
            confidence=1 - (DENIED_SHARE if kind != OFF_SCOPE else ALLOWED_SHARE),
            place=view.segment.place,
            start=0,
            end=len(view.segment.text),
            view=view.name,
            remedy=REMEDY,
        )


def windows(text: str) -> list[str]:
    """The text, or overlapping windows of a long one that begin at a word; of a very long one its head and its tail."""
    if len(text) <= WINDOW_CHARS:
        return [text]
    step = WINDOW_CHARS // 2
    if len(text) > (MOST_WINDOWS + 1) * step:
        half = (MOST_WINDOWS // 2 + 1) * step
        return [*windows(text[:half])[: MOST_WINDOWS // 2], *windows(text[-half:])[-MOST_WINDOWS // 2 :]]
    starts = range(0, len(text) - step, step)
    return [text[at if not at else _word(text, at) : at + WINDOW_CHARS] for at in starts]


def _word(text: str, at: int) -> int:
    """Where the next word begins, if one does soon."""
    space = text.find(" ", at, at + 40)
    return space + 1 if space >= 0 else at
