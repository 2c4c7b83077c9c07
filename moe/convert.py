"""Turns trained weights into other forms: experts into latent ones, a dense network into experts.

Conversions make new weights and leave the old model alone. They decide nothing about routing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from conclave.moe.block import BlockSpec
from conclave.moe.experts import FfnExperts, LatentExperts
from conclave.moe.model import ConclaveMoeConfig, ConclaveMoeForCausalLM
from conclave.moe.routing import Tensor

RIDGE = 1e-4  # of the mean second moment, added to each: directions that calibration never saw keep a weight


@dataclass(frozen=True, slots=True)
class Factors:
    """W_i ~ own_i @ shared for the matrices of one group."""

    shared: Tensor  # B [m, d]
    own: Tensor  # A [G, f, m]

    def product(self) -> Tensor:
        return self.own @ self.shared  # [G, f, d]


def factor(weights: Tensor, *, latent: int, moment: Tensor | None = None) -> Factors:
    """The best common factor of `weights` [G, f, d]: least squares in the outputs W x, not in W.

    Liu et al. 2025 (MoLAE, arXiv 2503.23100): SVD of the stacked matrices. We differ: with the inputs' second moment
    C = E[x x^T] (`moment` [d, d]) the stack is multiplied by C^(1/2) first, so that the error counts where inputs
    are; B = V_m^T C^(-1/2), A_i = W_i C^(1/2) V_m. Without `moment` it is the plain SVD (C = 1). Exact for m = d.
    """
    group, inner, width = weights.shape
    if not 1 <= latent <= width:
        raise ValueError(f"the shared factor is between 1 and {width} wide, not {latent}")
    double = weights.double()
    root, unroot = _roots(torch.eye(width, dtype=torch.float64) if moment is None else moment.double())
    _, _, right = torch.linalg.svd((double @ root).reshape(group * inner, width), full_matrices=group * inner < width)
    basis = right[:latent].T  # V_m [d, m]
    return Factors(shared=(basis.T @ unroot).to(weights.dtype), own=(double @ root @ basis).to(weights.dtype))


def _roots(moment: Tensor) -> tuple[Tensor, Tensor]:
    """C^(1/2) and C^(-1/2) of a symmetric matrix, both [d, d]."""
    values, vectors = torch.linalg.eigh(moment)
    values = values.clamp(min=0) + RIDGE * values.mean().clamp(min=1e-12)
    return (vectors * values.sqrt()) @ vectors.T, (vectors / values.sqrt()) @ vectors.T


def latent_experts(experts: FfnExperts, *, latent: int, group: int, moment: Tensor | None = None) -> LatentExperts:
    """The experts with a shared input factor for each `group` neighbours."""
    number, inner = experts.num_experts, experts.intermediate_dim
    made = LatentExperts(experts=number, width=experts.hidden_dim, inner=inner, latent=latent, group=group)
    with torch.no_grad():
        pairs = experts.gate_up_proj.detach().view(number // group, group, 2, inner, experts.hidden_dim)
        for place, members in enumerate(pairs):  # [group, 2, f, d]
            for part in range(2):  # gate, up
                found = factor(members[:, part], latent=latent, moment=moment)
                made.shared_proj[place, part] = found.shared
                made.gate_up_proj[place * group : (place + 1) * group, part] = found.own
        made.down_proj.copy_(experts.down_proj)
    return made


def to_latent(
    model: ConclaveMoeForCausalLM, *, latent: int, group: int, moments: list[Tensor] | None = None
) -> ConclaveMoeForCausalLM:
    """A new model with latent experts and everything else as it was. `moments`: one for each layer."""
    spec = replace(model.config.spec, latent=latent, group=group)
    made: ConclaveMoeForCausalLM = ConclaveMoeForCausalLM(_with(model.config, spec)).train(model.training)
    kept = {name: value for name, value in model.state_dict().items() if ".mlp.experts." not in name}
    made.load_state_dict(kept, strict=False)
    for number, (new, old) in enumerate(zip(made.blocks, model.blocks, strict=True)):
        moment = None if moments is None else moments[number]
        new.experts = latent_experts(old.experts, latent=latent, group=group, moment=moment)
    return made


def second_moments(model: ConclaveMoeForCausalLM, run: Callable[[Any], Any], batches: Iterable[Any]) -> list[Tensor]:
    """E[x x^T] of what each layer's experts see, over `run(batch)` for each batch. [d, d] for each layer"""
    sums: dict[int, Tensor] = {}
    counts: dict[int, int] = {}

    def watch(number: int) -> Callable[[Any, tuple[Any, ...]], None]:
        def note(module: Any, args: tuple[Any, ...]) -> None:  # noqa: ARG001  a hook is given both
            seen = args[0].detach().double()  # [T, d]
            sums[number] = sums.get(number, 0.0) + seen.T @ seen
            counts[number] = counts.get(number, 0) + seen.shape[0]

        return note

    hooks = [block.experts.register_forward_pre_hook(watch(n)) for n, block in enumerate(model.blocks)]
    try:
        with torch.no_grad():
            for batch in batches:
                run(batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not sums:
        raise ValueError("second moments need at least one batch")
    return [sums[n] / counts[n] for n in range(len(model.blocks))]


def from_olmoe(model: Any) -> ConclaveMoeForCausalLM:
    """An OLMoE checkpoint (the shipped tiny model is one) as a model with our block, same answers."""
    if getattr(model.config, "model_type", None) != "olmoe":
        raise ValueError(f"from_olmoe takes an OLMoE model, not {type(model).__name__}")
    old = model.config
    policy = {"name": "topk", "k": old.num_experts_per_tok, "renormalise": bool(old.norm_topk_prob)}
    spec = BlockSpec(experts=old.num_experts, inner=old.intermediate_size, policy=policy)
    made: ConclaveMoeForCausalLM = ConclaveMoeForCausalLM(_with(old, spec)).train(model.training)
    renamed = {name.replace(".mlp.gate.", ".mlp.gates.0."): value for name, value in model.state_dict().items()}
    made.load_state_dict(renamed)
    return made


def split_dense(gate: Tensor, up: Tensor, down: Tensor, *, experts: int) -> tuple[Tensor, Tensor]:
    """A gated dense network (gate and up [f, d], down [d, f]) as `experts` slices whose sum it is.

    Yang et al. 2025 (Union-of-Experts, arXiv 2503.02495): columns of the first matrices, rows of the second. Returns
    gate_up_proj [E, 2 f / E, d] and down_proj [E, d, f / E].
    """
    inner, width = gate.shape
    if experts < 1 or inner % experts:
        raise ValueError(f"an inner width of {inner} cannot be cut into {experts} equal experts")
    each = inner // experts
    gate_up = torch.cat([gate.view(experts, each, width), up.view(experts, each, width)], dim=1)
    return gate_up, down.view(width, experts, each).transpose(0, 1).contiguous()


def _with(config: Any, spec: BlockSpec) -> ConclaveMoeConfig:
    settings = {k: v for k, v in config.to_dict().items() if k not in {"model_type", "architectures", "block", "dtype"}}
    return ConclaveMoeConfig(**settings | {"block": spec.settings(), "router_aux_loss_coef": 0.0})
