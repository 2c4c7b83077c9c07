"""One mixture-of-experts block for models of our own: a policy, a kind of experts, shared ones, one or more rounds.

The block decides the order of a layer's work; which experts a token uses is its policy's decision. It is what the
systems differ in that a trained checkpoint cannot be switched to: fine-grained and shared experts (DeepSeekMoE), latent
experts (MoLAE) and chains of experts are built and trained so from the start, or converted (`convert.py`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Literal

import msgspec
import torch
from torch import nn
from torch.nn.functional import linear

from conclave.moe.experts import FfnExperts, LatentExperts, SharedExperts
from conclave.moe.routing import POLICIES, GateStyle, Policy, Routing, Step, Tensor, route
from conclave.moe.trace import Meter


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """What a block is made of; it stands in the configuration of a saved model."""

    experts: int = 8
    inner: int = 64  # width of one expert
    shared: int = 0  # always-on experts of the same width, beside the routed ones
    latent: int | None = None  # width of the shared factor; None: plain experts
    group: int = 1  # experts that share one factor
    rounds: int = 1  # a chain routes again after each round
    residual: Literal["inner", "outer"] = "outer"  # inner: each round adds to its own input
    own_gates: bool = True  # each round has its own gate
    policy: Mapping[str, Any] = field(default_factory=lambda: {"name": "topk"})

    def __post_init__(self) -> None:
        if min(self.experts, self.inner, self.rounds) < 1 or self.shared < 0:
            raise ValueError("a block has at least one expert, one round, an inner width of 1, and no negative shared")
        if self.experts % self.group:
            raise ValueError(f"{self.experts} experts do not fall into groups of {self.group}")
        POLICIES.make(self.policy).check(self.experts)

    @staticmethod
    def of(settings: Mapping[str, Any]) -> "BlockSpec":
        """From a configuration. Raises ValueError for what is unknown or wrong."""
        unknown = sorted(set(settings) - set(BlockSpec.__dataclass_fields__))
        if unknown:
            raise ValueError(f"a block has no setting {unknown[0]!r}; it has {sorted(BlockSpec.__dataclass_fields__)}")
        try:
            return msgspec.convert(dict(settings), BlockSpec)
        except msgspec.ValidationError as wrong:
            raise ValueError(f"a setting of the block is wrong: {wrong}") from None

    def settings(self) -> dict[str, Any]:
        return asdict(self) | {"policy": dict(self.policy)}


def fine_grained(spec: BlockSpec, *, split: int, shared: int = 0) -> BlockSpec:
    """Each expert cut into `split` narrower ones, `split` times as many chosen, `shared` of those always on.

    Dai et al. 2024 (DeepSeekMoE, arXiv 2401.06066), eq. 6-11: total and active parameters stay as they were.
    """
    k = spec.policy.get("k", 2)
    if spec.policy.get("name") != "topk" or split < 1 or spec.inner % split or not 0 <= shared < k * split:
        raise ValueError(
            f"fine_grained splits a top-k block whose inner width ({spec.inner}) is a multiple of {split}, "
            f"and shares fewer than the {k * split} experts that are active"
        )
    policy = {**spec.policy, "k": k * split - shared}
    return replace(spec, experts=spec.experts * split - shared, inner=spec.inner // split, shared=shared, policy=policy)


class Gate(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """The linear map whose logits a policy reads. Rows past the experts belong to null experts."""

    def __init__(self, *, experts: int, nulls: int, width: int) -> None:
        super().__init__()
        self.num_experts = experts
        self.weight = nn.Parameter(torch.empty(experts + nulls, width))

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the true experts, which transformers records as `router_logits`, and of all. [T, E], [T, E + m]"""
        logits = linear(hidden, self.weight)
        return logits[:, : self.num_experts], logits


class MoEBlock(nn.Module):  # type: ignore[misc]  # as above
    """Takes and gives [batch, length, width]; the decoder adds the result to the residual stream."""

    def __init__(self, spec: BlockSpec, *, width: int, layer: int = 0, config: Any = None) -> None:
        super().__init__()
        self.spec, self.layer, self.width = spec, layer, width
        self.policy: Policy = POLICIES.make(spec.policy)
        self.style = GateStyle()
        gates = spec.rounds if spec.own_gates else 1
        nulls = self.policy.null_experts
        self.gates = nn.ModuleList([Gate(experts=spec.experts, nulls=nulls, width=width) for _ in range(gates)])
        self.experts = _experts(spec, width=width, config=config)
        self.shared = SharedExperts(width=width, inner=spec.shared * spec.inner) if spec.shared else None
        self.meter: Meter | None = None
        self.step: Step | None = None  # set by the model before each pass; None: whole sequences
        self.routings: list[Routing] = []  # of the last pass in training

    def forward(self, hidden: Tensor) -> Tensor:
        """Runs the rounds: x_t = experts(x_{t-1}) [+ x_{t-1}], and returns what they add to x_0.

        Wang et al. 2025 (Chain-of-Experts, arXiv 2506.18945): own gate each round, experts shared, inner residual. The
        decoder's own residual adds x_0, so with inner residuals the block returns x_C - x_0.
        """
        batch, length, width = hidden.shape
        step = self.step or Step.whole(batch, length, device=hidden.device)
        self.routings.clear()
        first = at = hidden.reshape(-1, width)  # [T, d]
        for number in range(self.spec.rounds):
            done = self._round(number, at, step)
            at = done + at if self.spec.residual == "inner" else done
        out = at - first if self.spec.residual == "inner" else at
        return out.view(batch, length, width)

    def loss(self) -> Tensor:
        """The auxiliary loss of the last pass in training, mean over rounds."""
        if not self.routings:
            raise RuntimeError("a block has an auxiliary loss after a pass in training")
        step = self.step or Step.whole(self.routings[0].index.shape[0], 1)
        return torch.stack([self.policy.loss(routing, step) for routing in self.routings]).mean()

    def _round(self, number: int, hidden: Tensor, step: Step) -> Tensor:
        gate = self.gates[number if self.spec.own_gates else 0]
        place = self.layer * self.spec.rounds + number  # where this round's memory and counts are kept
        routing = route(
            self.policy,
            hidden=hidden,
            logits=gate(hidden)[1],
            gate=gate.weight,
            experts=self.spec.experts,
            style=self.style,
            step=step,
            layer=place,
        )
        if self.meter is not None:
            self.meter.add(place, routing, step)
        if self.training:
            self.routings.append(routing)
        out = self.experts(hidden, routing.index, routing.weight.to(hidden.dtype))  # [T, d]
        return out if self.shared is None else out + self.shared(hidden)


def _experts(spec: BlockSpec, *, width: int, config: Any) -> nn.Module:
    if spec.latent is not None:
        return LatentExperts(experts=spec.experts, width=width, inner=spec.inner, latent=spec.latent, group=spec.group)
    shape = {"num_experts": spec.experts, "hidden_size": width, "intermediate_size": spec.inner}
    experts = FfnExperts(SimpleNamespace(**shape, _experts_implementation="eager"))
    if config is not None:
        experts.config = config  # where the model's choice of an implementation stands
    experts._is_expert_parallel = True  # transformers: skip slots without an expert (see adapt.py)
    return experts
