"""What callers may choose of the routing: which policies, with how many experts at most.

The server's operator decides; a call can ask for less, never for more. One policy object is installed on the model
for good and asks, at each step, the policy of the call whose step it is: so calls with different policies share a
model without taking it apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from conclave.moe.adapt import Adapted
from conclave.moe.errors import InvalidRequest
from conclave.moe.routing import POLICIES, Choice, Policy, Routing, Scored, Step, Tensor


@dataclass(frozen=True, slots=True)
class Chosen:
    """How one call is routed."""

    policy: Policy
    experts_max: int
    allowed: tuple[bool, ...] | None = None  # by expert; None: all


@dataclass(frozen=True, slots=True)
class Offer:
    """The server's own policy, the names of those that a call may ask for, and the most experts of a token."""

    policy: Policy
    names: frozenset[str]
    experts_max: int
    widths: tuple[int, ...]  # experts of each layer

    @staticmethod
    def of(
        adapted: Adapted, *, policy: Policy | None = None, names: frozenset[str], experts_max: int | None = None
    ) -> "Offer":
        """Raises ValueError if the model cannot serve it. Without `experts_max` no call costs more than the native."""
        if unknown := sorted(names - set(POLICIES.names())):
            raise ValueError(f"there is no routing policy {unknown[0]!r}; known are {', '.join(POLICIES.names())}")
        own = policy or adapted.layers[0].native
        widths = tuple(layer.width for layer in adapted.layers)
        for width in widths:
            own.check(width)
        most = experts_max or max(int(layer.router.top_k) for layer in adapted.layers)
        return Offer(own, names | {POLICIES.name_of(own)}, most, widths)

    def choose(
        self,
        policy: Mapping[str, Any] | str | None,
        experts_max: int | None,
        experts: Sequence[int] | None = None,
    ) -> Chosen:
        """What a call gets that asks for this. Raises InvalidRequest that says what is offered."""
        most = min(experts_max or self.experts_max, self.experts_max)
        allowed = self._allowed(experts)
        if policy is None:
            return Chosen(self.policy, most, allowed)
        name = policy if isinstance(policy, str) else policy.get("name")
        if not isinstance(name, str) or name not in self.names:
            offered = ", ".join(sorted(self.names))
            raise InvalidRequest(f"this server offers the routing policies {offered}", param="conclave.moe.policy")
        try:
            made = POLICIES.make(policy)
            for width in self.widths:
                made.check(width)
        except ValueError as wrong:
            raise InvalidRequest(str(wrong), param="conclave.moe.policy") from None
        if made.null_experts not in {0, self.policy.null_experts}:
            raise InvalidRequest(
                f"this policy has {made.null_experts} null experts and the server's gates {self.policy.null_experts}",
                param="conclave.moe.policy",
            )
        return Chosen(made, most, allowed)

    def _allowed(self, experts: Sequence[int] | None) -> tuple[bool, ...] | None:
        """The mask of a call that may use only these experts, the same numbers in each layer."""
        if experts is None:
            return None
        width, place = min(self.widths), "conclave.moe.experts"
        if max(self.widths) != width:
            raise InvalidRequest("the layers of this model differ in their experts, so there is no mask", param=place)
        if max(experts) >= width:
            raise InvalidRequest(f"this model has the experts 0 to {width - 1} in each layer", param=place)
        return tuple(number in set(experts) for number in range(width))


@dataclass(slots=True)
class PerCall:
    """The policy that is installed: at each step that of `current`, which only the holder of the turn may set."""

    offer: Offer
    current: Policy = field(init=False)

    def __post_init__(self) -> None:
        self.current = self.offer.policy

    @property
    def null_experts(self) -> int:
        """Without them the gate is read without its null rows."""
        return self.current.null_experts

    @property
    def renormalise(self) -> bool | None:
        return self.current.renormalise

    @property
    def looks_back(self) -> bool:
        return self.current.looks_back

    def check(self, experts: int) -> None:
        self.offer.policy.check(experts)

    def select(self, scored: Scored, step: Step, layer: int) -> Choice:
        return self.current.select(scored, step, layer)

    def loss(self, routing: Routing, step: Step) -> Tensor:
        return self.current.loss(routing, step)
