"""The check `second_opinion`: asks a transformer about texts of which the learned detectors are in doubt.

In doubt is a head whose score lies from `from_score` up to its own threshold. What one of them finds needs nobody else,
and what all score below is passed. The transformer works in a bounded pool of threads and within a time; being late or
failing is the check's own failure, and its `on_error` says what follows. It adds findings and never takes one away.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Final, Protocol

from conclave.safety.api import DATA, Finding, Origin, View, tool_of
from conclave.safety.detect.learned import ORIGINS, SEVERITY, Heads

NAME: Final = "second_opinion"
MOST_VIEWS: Final = 4  # of a segment that are asked about: each costs milliseconds
READS: Final = DATA | {Origin.USER}


class Second(Protocol):
    """An opinion of texts, such as `safety/detect/second.py` has."""

    @property
    def names(self) -> Sequence[str]: ...

    def scores(self, text: str, *, stopped: Callable[[], bool]) -> Mapping[str, float]:
        """Each head's score. Takes milliseconds, and asks `stopped` now and then."""
        ...

    def probability(self, name: str, *, first: float, score: float) -> float:
        """How sure a detector's `first` and the opinion's score are together."""
        ...


@dataclass(frozen=True, slots=True)
class SecondCheck:
    """At most one finding of a head in a view; `thresholds` are those of the opinion, by head."""

    heads: Heads
    second: Second
    thresholds: Mapping[str, float]
    from_score: float
    timeout_s: float
    threads: Executor
    name: str = NAME
    decodes: bool = True
    origins: frozenset[Origin] = field(default=READS)

    def inspect(self, view: View) -> Sequence[Finding]:
        """The findings in one view."""
        return self.inspect_all((view,))

    def inspect_all(self, views: Sequence[View]) -> Sequence[Finding]:
        """The findings in the views of a text. Raises TimeoutError where the opinion takes too long."""
        if not views or tool_of(views[0].segment.place):  # full of instructions: nothing to doubt
            return ()
        said = self.heads.scores_of([view.text for view in views])
        doubts = {
            view.text: (view, first, names)
            for view, first in zip(views, said, strict=True)
            if (names := self._doubted(view, first))
        }
        asked = list(doubts.values())[:MOST_VIEWS]
        if not asked:
            return ()
        scores = self._asked([view.text for view, _, _ in asked])
        return [
            Finding(
                check=self.name,
                kind=f"{self.name}.{name}",
                severity=SEVERITY[name],
                confidence=confidence,
                place=view.segment.place,
                start=view.start,
                end=view.end,
                view=view.name,
            )
            for (view, first, names), score in zip(asked, scores, strict=True)
            for name in names
            if (confidence := self.second.probability(name, first=first[name], score=score[name]))
            >= self.thresholds[name]
        ]

    def _doubted(self, view: View, first: Mapping[str, float]) -> tuple[str, ...]:
        """The heads that are in doubt; none where another has found the text already."""
        heads = [name for name in self.second.names if view.segment.origin in ORIGINS[name]]
        if any(first[name] >= self.heads.threshold(name) for name in heads):
            return ()
        return tuple(name for name in heads if first[name] >= self.from_score)

    def _asked(self, texts: Sequence[str]) -> Sequence[Mapping[str, float]]:
        given_up = threading.Event()
        work = self.threads.submit(lambda: [self.second.scores(text, stopped=given_up.is_set) for text in texts])
        try:
            return work.result(self.timeout_s)
        except TimeoutError:
            given_up.set()
            work.cancel()
            raise
