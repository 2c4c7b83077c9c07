"""Why a question goes where it goes: every expert of the policy, with its place in the decision or what keeps it out.

It decides nothing: the decision is there, and this is what the rules say of it for people.
"""

from dataclasses import dataclass
from math import isinf

from conclave.gateway.policy.asked import Asked
from conclave.gateway.policy.rules import Rules
from conclave.router.api import Decision


@dataclass(frozen=True, slots=True)
class Considered:
    """One expert. `place` is 0 for who is asked first, 1 for its first fallback; None: it is not asked, for `why`.

    `expected` is what it is expected to score, None where the policy does not know; `price` is USD per million tokens,
    blended, None where nobody said.
    """

    expert: str
    place: int | None
    why: str
    expected: float | None
    price: float | None


def considered(rules: Rules, asked: Asked, decision: Decision) -> tuple[Considered, ...]:
    """All experts of the policy: those that are asked in their order, then the others in the policy's."""
    places = {step.expert: (place, step.reason) for place, step in reversed(list(enumerate(decision.steps)))}
    known = rules.table.expected(decision.row) | dict(decision.expected)
    found = []
    for name, candidate in rules.experts.items():
        place, why = places.get(name, (None, ""))
        price = None if isinf(candidate.price) else candidate.price
        found.append(Considered(name, place, why or hindrance(rules, asked, decision, name), known.get(name), price))
    return tuple(sorted(found, key=lambda one: (one.place is None, one.place or 0)))


def hindrance(rules: Rules, asked: Asked, decision: Decision, name: str) -> str:
    """Why an expert is not among those of the decision; the first reason of several."""
    missing = rules.experts[name].lacks(asked)
    member = decision.row != "any" and name in rules.table.members(decision.row)
    reasons = {
        "not among the tenant's experts": name not in rules.allowed,
        "the key does not reach it": not asked.reaches(name),
        f"cannot do: {', '.join(sorted(missing))}": bool(missing),
        "another one was asked for by name": decision.reason == "named",
        "banned from this category": name in rules.table.banned(asked.found),
        f"not in the row {decision.row}": not member,
    }
    return next((why for why, holds in reasons.items() if holds), "another one goes on with this conversation")
