"""What each stage's span says: what was decided there and why, from the call's row.

Numbers, names of the policy and words of our own lists; never user text, a document's words or a model's.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from conclave.gateway.telemetry import names

KINDS_CHARS: Final = 256  # of the kinds of findings, which are our own words
NO_EVIDENCE: Final = "no_evidence"  # the code of a call that nobody was asked for, since nothing was to be relied on

Value: TypeAlias = bool | int | float | str | list[str]
Row: TypeAlias = Mapping[str, Any]


def known(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    """Those that have a value."""
    return {name: value for name, value in attributes.items() if value is not None}


def decided(row: Row, stage: str) -> dict[str, Value]:
    """What a stage that was left, or a part that there was, came to."""
    match stage:
        case names.DETECT:
            return _checked(row.get("verdict"))
        case names.ROUTE:
            return _route(row)
        case names.SEARCH:
            return _searched(row)
        case names.CONTEXT:
            return _believed(row)
        case names.GUARD:
            return _checked(row.get("guard"), timed=True)
    return {names.DECISION: "passed"}


def _checked(verdict: Row | None, *, timed: bool = False) -> dict[str, Value]:
    """What the checks found and what followed; `timed` where the span is longer than they took."""
    if not verdict:
        return {names.DECISION: "passed"}
    return known(
        {
            names.DECISION: verdict["action"],
            names.STAGE_REASON: _words(found["kind"] for found in verdict["findings"]),
            names.WOULD: verdict.get("would"),
            names.CHECKS_MS: round(sum(ran["ms"] for ran in verdict["ran"]), 3) if timed else None,
        }
    )


def _route(row: Row) -> dict[str, Value]:
    """Who was chosen, and whether looking up pays."""
    decision = row.get("decision") or {}
    steps = decision.get("steps") or [{}]
    return known(
        {
            names.DECISION: steps[0].get("expert"),
            names.STAGE_REASON: decision.get("reason"),
            names.CATEGORY: decision.get("category"),
            names.CONFIDENT: decision.get("confidence"),
            names.UNSURE: decision.get("unsure"),
            names.RUNNER_UP: decision.get("runner_up"),
            names.ROW: decision.get("row"),
            names.LOOKED_UP: (row.get("retrieval") or {}).get("outcome"),
            names.GATE_REASON: (decision.get("look_up") or {}).get("reason"),
        }
    )


def _searched(row: Row) -> dict[str, Value]:
    found = row.get("retrieval") or {}
    failure, count = found.get("failure"), found.get("found")
    return known(
        {
            names.DECISION: "failed" if failure else "passed" if count is None else "found" if count else "nothing",
            names.STAGE_REASON: failure,
            names.FOUND: count,
            names.AMONG: found.get("among"),
        }
    )


def _believed(row: Row) -> dict[str, Value]:
    """What an expert was shown of what was found, and why not the rest."""
    found = row.get("retrieval") or {}
    away = found.get("kept_away") or ()
    reasons = (reason for one in away for reason in one["reasons"])
    disagree = [f"{found['conflict']}: {found['follows']}"] if "conflict" in found else []
    return known(
        {
            names.DECISION: "refused" if row.get("code") == NO_EVIDENCE else found.get("outcome", "passed"),
            names.STAGE_REASON: _words((*filter(None, [found.get("failure")]), *disagree, *reasons)),
            names.SHOWN: len(found.get("passages") or ()),
            names.KEPT_AWAY: len(away),
        }
    )


def _words(kinds: Iterable[str]) -> str | None:
    """Each once, in their order; None where there are none."""
    return ", ".join(dict.fromkeys(kinds))[:KINDS_CHARS] or None
