"""How tokens choose experts: what a gate says, what a policy makes of it, and the one place where limits apply.

`route` is the only way from a gate's logits to the experts of a token. Its order is fixed: the caller's mask on the
logits, scores, the policy's choice, the caller's cap on experts, renormalising, scaling. A policy never runs an
expert, never looks at a later token of the sequence and never sees which text the tokens stand for.

"No expert" is the index `experts` (one past the last) with weight 0: what transformers calls a sentinel.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import torch

from conclave.moe.registry import Registry

Tensor: TypeAlias = torch.Tensor

TINY = 1e-20  # added to a sum that is divided by, as DeepSeek-V3's router does


@dataclass(frozen=True, slots=True)
class GateStyle:
    """How one family reads its gate: what turns logits into scores, and what it does to the chosen weights."""

    scoring: Literal["softmax", "sigmoid"] = "softmax"
    renormalise: bool = False  # the chosen weights are divided by their sum
    scale: float = 1.0  # and multiplied by this (DeepSeek: routed_scaling_factor)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the callers of one batch may use, a row for each sequence. None: no limit."""

    experts_max: Tensor | None = None  # [batch] int64, at least 1
    allowed: Tensor | None = None  # [batch, experts] bool, at least one true in each row

    def __post_init__(self) -> None:
        if self.experts_max is not None and (self.experts_max.dim() != 1 or bool((self.experts_max < 1).any())):
            raise ValueError("experts_max is one number for each sequence, and at least 1")
        if self.allowed is not None and not bool(self.allowed.any(dim=-1).all()):
            raise ValueError("allowed is a mask [sequences, experts] that leaves each sequence at least one expert")


@dataclass(frozen=True, slots=True)
class Step:
    """One forward pass, as far as routing may depend on it.

    `memory` lives as long as the sequences' KV cache; a policy that looks back keeps there what it needs, under its
    layer. None: there is no cache, the sequences are whole.
    """

    batch: int
    length: int
    real: Tensor  # [batch, length] bool; False is padding
    start: Tensor  # [batch] int64: real tokens that came before this pass
    limits: Limits = field(default_factory=Limits)
    memory: MutableMapping[int, Tensor] | None = None
    generator: torch.Generator | None = None
    training: bool = False

    @staticmethod
    def whole(batch: int, length: int, *, device: torch.device | str = "cpu") -> "Step":
        """Sequences without padding, cache or limits."""
        real = torch.ones(batch, length, dtype=torch.bool, device=device)
        return Step(batch, length, real, torch.zeros(batch, dtype=torch.int64, device=device))

    def by_token(self, rows: Tensor) -> Tensor:
        """[batch, ...] -> [tokens, ...]"""
        return rows.repeat_interleave(self.length, dim=0)


@dataclass(frozen=True, slots=True)
class Scored:
    """What the gate says about T tokens, after the caller's mask. Columns past `experts` belong to null experts."""

    hidden: Tensor  # [T, d]
    logits: Tensor  # [T, E + m]
    scores: Tensor  # [T, E + m] fp32: what weights come from
    choice: Tensor  # [T, E + m] fp32: what the choice is made by; -inf is forbidden
    experts: int  # E
    gate: Tensor  # [E + m, d], for policies that score something other than the token itself

    def of(self, hidden: Tensor) -> Tensor:
        """The gate's softmax [.., E + m] for other vectors than the tokens' own."""
        return torch.softmax(torch.nn.functional.linear(hidden.float(), self.gate.float()), dim=-1)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a policy chose: experts of each token, and their weights before renormalising."""

    index: Tensor  # [T, K] int64; Scored.experts or more is no expert
    weight: Tensor  # [T, K] fp32


@dataclass(frozen=True, slots=True)
class Routing:
    """The experts of T tokens, ready to run."""

    index: Tensor  # [T, K] int64; `experts` is no expert
    weight: Tensor  # [T, K] fp32; 0 where there is no expert
    picked: Tensor  # [T, K] int64: as the policy chose, null experts by their own number
    logits: Tensor  # [T, E + m]
    scores: Tensor  # [T, E + m] fp32
    experts: int

    @property
    def used(self) -> Tensor:
        """Experts that really run, for each token: [T] int64."""
        return (self.index < self.experts).sum(dim=-1)


class Policy(Protocol):
    """One way to choose experts. Implementations are frozen dataclasses: their fields are the policy's settings."""

    @property
    def null_experts(self) -> int:
        """Columns that the gate has beyond its experts."""
        ...

    @property
    def renormalise(self) -> bool | None:
        """Whether chosen weights sum to 1; None: as the gate was trained."""
        ...

    @property
    def looks_back(self) -> bool:
        """Whether a token's experts depend on earlier tokens: then sequences must be told apart."""
        ...

    def check(self, experts: int) -> None:
        """Raise ValueError if a gate with so many experts cannot serve this policy."""
        ...

    def select(self, scored: Scored, step: Step, layer: int) -> Choice:
        """The experts of each token."""
        ...

    def loss(self, routing: Routing, step: Step) -> Tensor:
        """The auxiliary loss of one layer, already weighted by the policy's coefficients."""
        ...


POLICIES: Registry[Policy] = Registry("routing policy", package="conclave.moe.policies")


def route(  # noqa: PLR0913  each is one input of the fixed order above
    policy: Policy,
    *,
    hidden: Tensor,
    logits: Tensor,
    gate: Tensor,
    experts: int,
    style: GateStyle,
    step: Step,
    layer: int,
    bias: Tensor | None = None,
) -> Routing:
    """Experts for tokens `hidden` [T, d] from the gate's `logits` [T, E + m]; `bias` [E] counts for the choice only."""
    scored = _score(hidden, logits, gate, experts=experts, style=style, step=step, bias=bias)
    choice = policy.select(scored, step, layer)
    inside = choice.index.clamp(max=logits.shape[1] - 1)  # a policy may itself say "no expert"
    allowed = (choice.index < experts) & ~torch.isneginf(scored.choice.gather(1, inside))  # NaN runs, and shows
    weight = torch.where(allowed, choice.weight, 0.0)  # [T, K]
    if step.limits.experts_max is not None:
        allowed = _capped(allowed, weight, step.by_token(step.limits.experts_max))
        weight = torch.where(allowed, weight, 0.0)
    renormalise = style.renormalise if policy.renormalise is None else policy.renormalise
    if renormalise:
        weight = weight / (weight.sum(dim=-1, keepdim=True) + TINY)  # no expert at all: 0 / TINY = 0
    return Routing(
        index=torch.where(allowed, choice.index, experts),
        weight=weight * style.scale,
        picked=choice.index,
        logits=logits,
        scores=scored.scores,
        experts=experts,
    )


def _score(  # noqa: PLR0913  as above
    hidden: Tensor, logits: Tensor, gate: Tensor, *, experts: int, style: GateStyle, step: Step, bias: Tensor | None
) -> Scored:
    forbidden = None
    seen = logits.float()
    if step.limits.allowed is not None:
        if step.limits.allowed.shape != (step.batch, experts):
            raise ValueError(
                f"the mask of allowed experts is {list(step.limits.allowed.shape)}; "
                f"this layer and batch need [{step.batch}, {experts}]"
            )
        nulls = logits.shape[1] - experts
        forbidden = torch.nn.functional.pad(~step.by_token(step.limits.allowed), (0, nulls))  # [T, E + m]
        seen = seen.masked_fill(forbidden, float("-inf"))
    scores = torch.softmax(seen, dim=-1) if style.scoring == "softmax" else torch.sigmoid(seen)
    choice = scores if bias is None else scores + torch.nn.functional.pad(bias, (0, logits.shape[1] - experts))
    if forbidden is not None:
        choice = choice.masked_fill(forbidden, float("-inf"))
    return Scored(hidden, logits, scores, choice, experts, gate)


def _capped(allowed: Tensor, weight: Tensor, most: Tensor) -> Tensor:
    """Keep the `most` [T] heaviest of each token's experts."""
    rank = weight.masked_fill(~allowed, -1.0).argsort(dim=-1, descending=True).argsort(dim=-1)  # [T, K]
    return allowed & (rank < most.unsqueeze(-1))


def best(scored: Scored, choice: Tensor, k: int) -> Choice:
    """The k best columns of `choice` [T, N], weighted by their scores."""
    index = torch.topk(choice, k, dim=-1).indices  # [T, k]
    weight = scored.scores.gather(1, index)
    return Choice(index.masked_fill(weight.isnan(), 0), weight)  # no null expert hides that there are no numbers
