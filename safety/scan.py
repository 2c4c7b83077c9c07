"""What the learned detectors say of one text of an origin: `conclave safety scan`, a row at a time.

It knows no policy: a text is blocked where a detector that reads its origin reaches its own threshold. Every view of
the text is scored, whatever its origin, so that all scores can be compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from conclave.safety.api import Finding, Origin, Segment
from conclave.safety.boundary.caps import BoundaryError
from conclave.safety.boundary.normalise import fold
from conclave.safety.boundary.views import views_of
from conclave.safety.detect.learned import Heads, learned_checks

ORIGINS: Final[Mapping[str, Origin]] = MappingProxyType(
    {"user": Origin.USER, "tool": Origin.TOOL, "retrieved": Origin.TOOL, "file": Origin.FILE}
)
SCORES: Final = ("override", "persona", "embedded")  # that a row says; what others find stands in its findings
MOST_CHARS: Final = 8_000_000  # of a folded text


@dataclass(frozen=True, slots=True)
class Scanned:
    """The action that follows by default, each detector's highest score of a view, and the findings that count."""

    action: str
    scores: Mapping[str, float]
    findings: tuple[Finding, ...]


def scan(heads: Heads, text: str, origin: Origin) -> Scanned:
    """Score all views of a text; raises ValueError for one that is too long to be folded."""
    try:
        segment = Segment(origin, text, fold(text, max_chars=MOST_CHARS), "text")
    except BoundaryError as error:
        raise ValueError(str(error)) from error
    views = views_of(segment)
    said = heads.scores_of([view.text for view in views])
    scores = {name: max(one[name] for one in said) for name in heads.names}
    readers = [check for check in learned_checks(heads) if origin in check.origins]
    findings = tuple(
        found for check in readers if scores[check.name] >= check.threshold for found in check.inspect_all(views)
    )
    return Scanned("block" if findings else "allow", scores, findings)


def as_row(name: object, found: Scanned) -> dict[str, object]:
    """What is written for a row."""
    return {
        "id": name,
        "action": found.action,
        "scores": {head: round(found.scores[head], 6) for head in SCORES},
        "findings": [
            {
                "check": one.check,
                "kind": one.kind,
                "confidence": round(one.confidence, 6),
                "start": one.start,
                "end": one.end,
                "view": one.view,
            }
            for one in found.findings
        ],
    }


def below(measured: Mapping[str, float], floors: Mapping[str, float]) -> Sequence[str]:
    """What fails the gate, in words: a metric under its floor, or one that was not measured."""
    return [
        f"{name}: {measured[name]:.4f} is below {floor}" if name in measured else f"{name}: not measured"
        for name, floor in floors.items()
        if not measured.get(name, -1.0) >= floor
    ]
