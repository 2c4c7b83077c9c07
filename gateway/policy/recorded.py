"""A decision as it stands in the record, and how to decide again from there: both directions on one page.

`as_row` keeps every input of the choice beside its result, so `again` needs nothing but the row and the policy version
that it names. Floats are written as JSON writes them, with the digits that read back as the same double.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from conclave.gateway.policy.asked import Asked
from conclave.router.api import Classification, Decision, Step, Talk, Turn

if TYPE_CHECKING:
    from conclave.gateway.policy.rules import Rules

NOT_DECIDED: Final = frozenset({"conversation"})  # keys of a row's decision that do not follow from the choice


class IncompleteError(ValueError):
    """The row does not hold every input of its choice; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is not as the row says: the path in its `decision`, what stands there, and what comes out now."""

    path: str
    recorded: Any
    now: Any


def as_row(decision: Decision, asked: Asked | None, arm: str | None = None) -> dict[str, Any]:
    """What the record keeps of a decision; without `asked` it cannot be replayed."""
    row: dict[str, Any] = {
        "row": decision.row,
        "reason": decision.reason,
        "steps": [_step(step) for step in decision.steps],
        "model_digest": decision.model_digest,
    }
    if decision.expected:
        row["expected"] = decision.expected
    if asked is not None:
        row["needs"] = sorted(asked.needs)
        if asked.reach is not None:
            row["reach"] = sorted(asked.reach)
        if asked.talk != Talk():
            row["talk"] = _talk(asked.talk)
        if asked.quality:
            row["quality"] = asked.quality
    if arm is not None:
        row["arm"] = arm
    if (found := decision.classification) is not None:
        row |= {
            "category": found.category,
            "confidence": found.confidence,
            "unsure": found.unsure,
            "runner_up": found.runner_up if len(found.probabilities) > 1 else None,
            "probabilities": found.probabilities,
        }
    return row


def _step(step: Step) -> dict[str, Any]:
    row: dict[str, Any] = {"expert": step.expert, "reason": step.reason}
    return row | {"on_trial": True} if step.on_trial else row


def _talk(talk: Talk) -> dict[str, Any]:
    row: dict[str, Any] = {"open_loop": talk.open_loop}
    if talk.before is not None:
        row["before"] = talk.before
    if talk.turns:
        row["turns"] = [
            {"weight": turn.weight, "category": turn.category, "unsure": turn.unsure} for turn in talk.turns
        ]
    return row


def _talk_of(row: Mapping[str, Any]) -> Talk:
    turns = (Turn(turn["weight"], turn["category"], turn["unsure"]) for turn in row.get("turns", ()))
    return Talk(row.get("before"), row.get("open_loop", False), tuple(turns))


def asked_of(row: Mapping[str, Any]) -> Asked:
    """What the choice of a row of kind `call` followed from. Raises IncompleteError."""
    decision = row.get("decision")
    if not isinstance(decision, dict):
        raise IncompleteError("the call ended before an expert was chosen")
    if "needs" not in decision:
        raise IncompleteError("the row is of an older Conclave, which did not keep what the request needed")
    found = None
    if "category" in decision:
        found = Classification(
            decision["category"], decision["confidence"], decision["unsure"], decision["probabilities"]
        )
    reach = decision.get("reach")
    return Asked(
        row["model"],
        row["operation"],
        frozenset(decision["needs"]),
        frozenset(reach) if reach is not None else None,
        found,
        _talk_of(decision.get("talk") or {}),
        decision.get("quality") or {},
    )


def again(rules: "Rules", row: Mapping[str, Any]) -> list[Change]:
    """What these rules decide otherwise than the row says; nothing if it is the same, bit for bit.

    Raises IncompleteError, and what `Rules.choose` raises.
    """
    asked, decision = asked_of(row), row["decision"]
    if decision.get("arm") is not None:
        chosen = rules.arms.named(decision["arm"]) if rules.arms is not None else None
        if chosen is None:
            raise IncompleteError(f"the policy has no arm {decision['arm']!r}")
        rules = chosen
    rules = replace(rules, model_digest=decision["model_digest"] or "")  # who classified is an input, too
    now = as_row(rules.choose(asked), asked, rules.arm)
    return _changes(_read_back(decision), _read_back(now))


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
