"""What the policy's shadows would have chosen, beside what was chosen: from the record, so no call waits for it.

A row holds what its choice followed from, and no text; a shadow's rules choose again from that. Of an A/B test only the
arm `control` counts: a shadow is compared with the policy itself. It asks nobody, and nothing follows from it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from conclave.gateway.errors import ConclaveError
from conclave.gateway.followers.api import Row
from conclave.gateway.followers.reached import Reached
from conclave.gateway.policy.asked import Asked
from conclave.gateway.policy.overlay import CONTROL, trial_digest
from conclave.gateway.policy.prices import paid_for, usd_for
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.recorded import IncompleteError, asked_of
from conclave.gateway.policy.rules import Rules
from conclave.gateway.state.sql import Database, keep_new
from conclave.gateway.state.tables import shadow_choices

NAME: Final = "shadow"
MOST_COMPILED: Final = 256  # of (version, tenant), before all are compiled anew

FindVersion: TypeAlias = Callable[[str], Version | None]


@dataclass(frozen=True, slots=True)
class Shadow:
    """One shadow for one tenant's calls. `trial` is a digest of both ways to choose that are compared."""

    name: str
    trial: str
    rules: Rules


class ShadowScores:
    """A Follower. `version` finds the version of the policy that a row names by its digest."""

    name = NAME
    past = True

    def __init__(self, database: Database, version: FindVersion) -> None:
        self._database = database
        self._version = version
        self._reached = Reached(database, NAME)
        self._compiled: dict[tuple[str, str], tuple[Shadow, ...]] = {}

    def position(self) -> Mapping[str, int]:
        return self._reached.read()

    def follow(self, rows: Sequence[Row]) -> None:
        found = {digest: self._version(digest) for digest in {row.data.get("policy") for row in rows} if digest}
        shadowed = {digest: one for digest, one in found.items() if one is not None and one.document.routing.shadow}
        choices: list[dict[str, Any]] = []
        for row in rows if shadowed else ():  # most policies have none: no row need be looked at
            version = shadowed.get(row.data.get("policy"))
            choices += self._choices(row, version) if version is not None else ()
        if not choices and not self._reached.due(rows):
            return
        with self._database.write() as connection:
            keep_new(connection, shadow_choices, choices)
            self._reached.write(connection, rows)

    def _choices(self, row: Row, version: Version) -> Iterator[dict[str, Any]]:
        decision = row.data.get("decision")
        if row.data["kind"] != "call" or not decision or not decision.get("category"):
            return
        if decision.get("arm") not in (None, CONTROL):
            return
        whole = msgspec.json.decode(row.raw)
        try:
            asked = asked_of(whole)
        except IncompleteError:  # a row of an older Conclave
            return
        for shadow in self._shadows(version, whole["tenant"]):
            yield {
                **_about(row, whole),
                "shadow": shadow.name,
                "trial": shadow.trial,
                **_compared(shadow, asked, version, whole),
            }

    def _shadows(self, version: Version, tenant: str) -> tuple[Shadow, ...]:
        key = (version.digest, tenant if tenant in version.document.tenants else "")
        if key not in self._compiled:
            if len(self._compiled) >= MOST_COMPILED:
                self._compiled.clear()
            document = version.document
            self._compiled[key] = tuple(
                Shadow(name, trial_digest(document, document.routing.shadow[name]), rules)
                for name, rules in version.shadows_for(tenant).items()
            )
        return self._compiled[key]


def _about(row: Row, whole: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "chain": row.chain,
        "seq": row.seq,
        "time": whole["time"],
        "request_id": whole["request_id"],
        "category": whole["decision"]["category"],
    }


def _compared(shadow: Shadow, asked: Asked, version: Version, whole: Mapping[str, Any]) -> dict[str, Any]:
    """Both experts, with what the policy expects of them and what the call's tokens cost there."""
    chosen = whole["decision"]["steps"][0]["expert"]
    try:
        decision = shadow.rules.choose(asked)
    except ConclaveError:  # its table has nobody for this request
        return {"expert": chosen}
    other = decision.steps[0].expert
    kept: dict[str, Any] = {"expert": chosen, "other": other}
    for expected in (whole["decision"].get("expected") or {}, decision.expected):
        if chosen in expected and other in expected:
            kept |= {"score": expected[chosen], "other_score": expected[other]}
            break
    costs = [_cost(version, expert, _used(whole)) for expert in (chosen, other)]
    return kept if None in costs else kept | {"cost_usd": costs[0], "other_cost_usd": costs[1]}


def _used(whole: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tokens of the answer that was shown: another choice would not have paid for failures and trials, too."""
    attempts: Sequence[Mapping[str, Any]] = whole.get("attempts") or ()
    if len(attempts) < 2:  # noqa: PLR2004  one is all
        return whole.get("usage") or {}
    return next((one for one in attempts if one["expert"] == whole.get("kept")), attempts[-1]).get("usage") or {}


def _cost(version: Version, expert: str, usage: Mapping[str, Any]) -> float | None:
    """What the call's tokens cost at this expert; another expert may need others, which nobody knows."""
    settings = version.document.experts.get(expert)
    price = paid_for(settings) if settings is not None else None
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if price is None or read is None or written is None:
        return None
    return usd_for(price, input_tokens=read, output_tokens=written)
