"""A recorded decision decided again: the same, other, or not to be known, and why.

It takes the row's own inputs and the policy version that the row names, never today's. What it proves is that the
choice followed from these; that the row is what was written, `conclave audit verify` proves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from conclave.gateway.errors import ConclaveError
from conclave.gateway.policy.past import PastVersions
from conclave.gateway.policy.recorded import Change, IncompleteError, again, known_of, read_row
from conclave.router.api import Decision, NoStepLeft, Outcome, Step, next_step

Ending: TypeAlias = Literal["same", "differs", "unknown"]


@dataclass(frozen=True, slots=True)
class Replayed:
    """`why` says what hinders, where the ending is `unknown`; `changes` what differs, where it is that."""

    ending: Ending
    changes: tuple[Change, ...] = ()
    why: str = ""


def replayed(row: Mapping[str, Any], versions: PastVersions) -> Replayed:
    """The decision of a row of kind `call`, decided again."""
    digest = row.get("policy")
    if row.get("decision") is None or digest is None:
        return Replayed("unknown", why="the call ended before an expert was chosen")
    version = versions.find(str(digest))
    if version is None:
        return Replayed("unknown", why=f"the table of versions has no policy {str(digest)[:12]} that can be read")
    try:
        changes = again(version.rules_for(str(row.get("tenant"))), row)
        changes += walked(row)
    except IncompleteError as error:
        return Replayed("unknown", why=str(error))
    except ConclaveError as error:
        return Replayed("differs", (Change("steps", row["decision"]["steps"], error.message),))
    return Replayed("differs" if changes else "same", tuple(changes))


def walked(row: Mapping[str, Any]) -> list[Change]:
    """Where the experts that were asked are not those that the decision names after what became of each before.

    Raises IncompleteError.
    """
    call = read_row(row)
    found = call.decision
    decision = Decision(found.steps, found.reason, found.row, look_up=found.look_up, closed_book=found.closed_book)
    outcomes: list[Outcome] = []
    for place, attempt in enumerate(call.attempts):
        step = _next(decision, outcomes)
        if step is None or step.expert != attempt.expert:
            return [Change(f"attempts[{place}]", attempt.expert, step.expert if step is not None else None)]
        unsure = (attempt.trial or {}).get("unsure") is True
        outcomes.append(Outcome(accepted=False, error=attempt.failure, unsure=unsure, known=known_of(attempt)))
    return []


def _next(decision: Decision, outcomes: Sequence[Outcome]) -> Step | None:
    """The expert asked after these. Whether a word was shown is not in the row: it counts once all were asked, and
    after an escalation that failed."""
    for shown in (False, True):
        try:
            step = next_step(decision, outcomes, shown=shown, resumable=shown)
        except NoStepLeft:
            continue
        if not step.kept:  # to keep an answer asks nobody
            return step
    return None
