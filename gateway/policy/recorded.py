"""A decision as it stands in the record, and how to decide again from there: both directions on one page.

`as_row` keeps every input of the choice beside its result, so `again` needs nothing but the row and the policy version
that it names. Floats are written as JSON writes them, with the digits that read back as the same double.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from conclave.gateway.call import Operation
from conclave.gateway.errors import ConclaveError
from conclave.gateway.policy.asked import NO_TALK, Asked
from conclave.router.api import Assessment, Classification, ClosedBook, Decision, LookUp, Step, Talk

if TYPE_CHECKING:
    from conclave.gateway.policy.choosing import Candidate
    from conclave.gateway.policy.rules import Rules
    from conclave.router.choose import Table

NOT_DECIDED: Final = frozenset({"conversation", "basis"})  # keys of a row's decision that do not follow from the choice
BASIS_BYTES: Final = 8


class IncompleteError(ValueError):
    """A row cannot be decided again; the message says what is missing or not as it was."""


class RecordedAttempt(msgspec.Struct, frozen=True):
    """What the order of the steps follows from."""

    expert: str
    failure: str | None = None
    trial: dict[str, Any] | None = None


class RecordedDecision(msgspec.Struct, frozen=True):
    """The inputs of a choice as a row has them, and its steps. `needs` is None in rows of an older Conclave."""

    row: str
    reason: str
    steps: Annotated[tuple[Step, ...], msgspec.Meta(min_length=1)]
    model_digest: str | None = None
    needs: frozenset[str] | None = None
    reach: frozenset[str] | None = None
    talk: Talk = Talk()
    quality: dict[str, float] = {}
    look_up: LookUp | None = None
    closed_book: ClosedBook | None = None
    flagged: bool = False
    arm: str | None = None
    basis: str | None = None
    category: str | None = None
    confidence: float = 0.0
    unsure: bool = False
    probabilities: dict[str, float] = {}


class RecordedCall(msgspec.Struct, frozen=True):
    """What a replay reads of a row of kind `call`."""

    model: str
    operation: Operation
    decision: RecordedDecision
    attempts: tuple[RecordedAttempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as the row says: the path in its `decision`, what stands there, and what comes out now."""

    path: str
    recorded: Any
    now: Any


def as_row(decision: Decision, asked: Asked | None, arm: str | None = None, basis: str = "") -> dict[str, Any]:
    """What the record keeps of a decision; without `asked` it cannot be replayed."""
    row: dict[str, Any] = {
        "row": decision.row,
        "reason": decision.reason,
        "steps": [_step(step) for step in decision.steps],
        "model_digest": decision.model_digest,
    }
    if decision.expected:
        row["expected"] = decision.expected
    if decision.closed_book is not None:
        row["closed_book"] = asdict(decision.closed_book)
    if asked is not None:
        row["needs"] = sorted(asked.needs)
        if asked.reach is not None:
            row["reach"] = sorted(asked.reach)
        if asked.talk != NO_TALK:
            row["talk"] = _talk(asked.talk)
        if asked.quality:
            row["quality"] = asked.quality
        if asked.look_up is not None:
            row["look_up"] = asdict(asked.look_up)
        if asked.flagged:
            row["flagged"] = True
    if arm is not None:
        row["arm"] = arm
    if basis:
        row["basis"] = basis
    if (found := decision.classification) is not None:
        row |= {
            "category": found.category,
            "confidence": found.confidence,
            "unsure": found.unsure,
            "runner_up": found.runner_up if len(found.probabilities) > 1 else None,
            "probabilities": found.probabilities,
        }
    return row


def basis_of(experts: "Mapping[str, Candidate]", *tables: "Table") -> str:
    """A digest of what a policy was compiled to. A part of that is Conclave's own: prices and capabilities that the
    policy leaves to the catalog, and tables that the solver made. Another Conclave may come to another.
    """
    raw = msgspec.json.encode([list(experts.values()), tables], order="deterministic")
    return hashlib.blake2b(raw, digest_size=BASIS_BYTES).hexdigest()


def _step(step: Step) -> dict[str, Any]:
    row: dict[str, Any] = {"expert": step.expert, "reason": step.reason}
    if step.on_trial:
        row["on_trial"] = True
    return row | {"look_up": True} if step.look_up else row


def _talk(talk: Talk) -> dict[str, Any]:
    row: dict[str, Any] = {"open_loop": talk.open_loop}
    if talk.before is not None:
        row["before"] = talk.before
    if talk.turns:
        row["turns"] = [
            {"weight": turn.weight, "category": turn.category, "unsure": turn.unsure} for turn in talk.turns
        ]
    return row


def read_row(row: Mapping[str, Any]) -> RecordedCall:
    """A row of kind `call`. Raises IncompleteError."""
    if row.get("decision") is None:
        raise IncompleteError("the call ended before an expert was chosen")
    try:
        return msgspec.convert(row, RecordedCall)
    except msgspec.ValidationError as error:
        raise IncompleteError(f"the row is not as Conclave writes it: {error}") from error


def known_of(attempt: RecordedAttempt) -> Assessment | None:
    """What an attempt's answer showed of what its expert knows. Raises IncompleteError."""
    try:
        return msgspec.convert((attempt.trial or {}).get("known"), Assessment | None)
    except msgspec.ValidationError as error:
        raise IncompleteError(f"the row is not as Conclave writes it: {error}") from error


def asked_of(row: Mapping[str, Any]) -> Asked:
    """What the choice of a row of kind `call` followed from. Raises IncompleteError."""
    return _asked(read_row(row))


def _asked(call: RecordedCall) -> Asked:
    decision, found = call.decision, None
    if decision.needs is None:
        raise IncompleteError("the row is of an older Conclave, which did not keep what the request needed")
    if decision.category is not None:
        found = Classification(decision.category, decision.confidence, decision.unsure, decision.probabilities)
    return Asked(
        call.model,
        call.operation,
        decision.needs,
        decision.reach,
        found,
        decision.talk,
        decision.quality,
        decision.look_up,
        decision.flagged,
    )


def again(rules: "Rules", row: Mapping[str, Any]) -> list[Change]:
    """What these rules decide otherwise than the row says; nothing if it is the same, bit for bit.

    Raises IncompleteError, and what `Rules.choose` raises.
    """
    call = read_row(row)
    asked, decision = _asked(call), call.decision
    if decision.arm is not None:
        chosen = rules.arms.named(decision.arm) if rules.arms is not None else None
        if chosen is None:
            raise IncompleteError(f"the policy has no arm {decision.arm!r}")
        rules = chosen
    rules = replace(rules, model_digest=decision.model_digest or "")  # who classified is an input, too
    moved = decision.basis is not None and decision.basis != rules.basis
    try:
        now = as_row(rules.choose(asked), asked, rules.arm)
    except ConclaveError as error:
        if moved:
            raise _moved() from error
        raise
    changes = _changes(_read_back(row["decision"]), _read_back(now))
    if changes and moved:
        raise _moved()
    return changes


def _moved() -> IncompleteError:
    return IncompleteError(
        "the policy leaves prices, capabilities or its table to Conclave, and this Conclave comes to others than then"
    )


def _read_back(row: Mapping[str, Any]) -> dict[str, Any]:
    """As it is when it was written and read again."""
    return msgspec.json.decode(msgspec.json.encode(row), type=dict[str, Any])


def _changes(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    found = []
    for key in sorted({*recorded, *now}):
        before, after = recorded.get(key), now.get(key)
        if key not in NOT_DECIDED and before != after:
            found.append(Change(key, before, after))
    return found
