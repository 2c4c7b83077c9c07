"""Null experts: columns of the gate that stand for no work. A token that chooses some of them runs fewer experts."""

from dataclasses import dataclass

from conclave.moe.losses import null_balance
from conclave.moe.routing import POLICIES, Choice, Routing, Scored, Step, Tensor, best


@POLICIES.register("null")
@dataclass(frozen=True, slots=True)
class NullExperts:
    """Top-k over E true and m null experts; the true ones' weights sum to 1 (Zeng et al. 2024, arXiv 2406.13233).

    The mean number of true experts is near k E / (E + m) once the loss has balanced the load. A token whose k choices
    are all null leaves the layer as it came.
    """

    k: int = 4
    nulls: int = 8
    balance: float = 0.001
    renormalise: bool | None = True

    def __post_init__(self) -> None:
        if self.k < 1 or self.nulls < 1:
            raise ValueError(f"null experts need k and nulls of at least 1, not {self.k} and {self.nulls}")

    @property
    def null_experts(self) -> int:
        return self.nulls

    @property
    def looks_back(self) -> bool:
        return False

    def check(self, experts: int) -> None:
        if self.k > experts + self.nulls:
            raise ValueError(f"{self.k} of {experts} true and {self.nulls} null experts cannot be chosen")

    def select(self, scored: Scored, step: Step, layer: int) -> Choice:  # noqa: ARG002  every policy is asked alike
        return best(scored, scored.choice, self.k)

    def loss(self, routing: Routing, step: Step) -> Tensor:
        real = step.real.reshape(-1)
        return self.balance * null_balance(routing.scores, routing.picked, real, experts=routing.experts)
