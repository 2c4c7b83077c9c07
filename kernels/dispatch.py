"""Plugs the kernels into transformers: `register()` makes `conclave` an experts implementation beside `eager`.

    register()
    model = AutoModelForCausalLM.from_pretrained(path, experts_implementation="conclave")
    model.set_experts_implementation("conclave")  # or a live model, and back with "eager"

`save_pretrained` does not keep the choice: name it at every load. This module imports torch and transformers, so
import it only where a local model runs; the gateway never does. Experts with another layout (biases, transposed or
interleaved weights, a gate of their own) are handed to transformers' own `grouped_mm`, and so is a graph that torch
is compiling. Each path that was taken, and why a step down was, is counted in `PATHS` and logged once.

`generate` swaps `grouped_mm` for another implementation while it decodes, but no other name (transformers 5.17 to
5.23), so this one serves prompts and single tokens alike.
"""

from collections import Counter
from typing import Any

import structlog
import torch
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, _default_apply_gate, grouped_mm_experts_forward

from conclave.kernels.cpu.prepared import prepare
from conclave.kernels.experts.api import choose, fused_experts

NAME = "conclave"
PREPARED = "_conclave_prepared"  # attribute of an experts module; no parameter or buffer, so no checkpoint holds it
PATHS: Counter[str] = Counter()  # path taken -> layer calls, since the process began
ACT_NAMES = {
    "SiLU": "silu",
    "SiLUActivation": "silu",
    "GELUActivation": "gelu",
    "GELUTanh": "gelu_tanh",
    "PytorchGELUTanh": "gelu_tanh",
}
DEFAULT_LAYOUT = {
    "has_gate": True,
    "has_bias": False,
    "is_transposed": False,
    "is_concatenated": True,
    "has_post_expert_norm": False,
}

log = structlog.get_logger()


def register() -> None:
    """Make the name known to transformers; must come before the first model is built with it. Again does no harm."""
    ALL_EXPERTS_FUNCTIONS.register(NAME, conclave_experts)


def conclave_experts(
    self: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """The forward of an experts module: `[T, H]`, `[T, k]`, `[T, k]` -> `[T, H]`; an id outside `[0, E)` is no work."""
    compiling = torch.compiler.is_compiling()  # into one graph, which a count or a log line would break
    why = None if compiling else unsupported(self)
    if compiling or why is not None:
        if not compiling:
            _count("grouped_mm", why)
        ids, weights = without_sentinels(top_k_index, top_k_weights, experts=self.num_experts)
        forwarded: torch.Tensor = grouped_mm_experts_forward(self, hidden_states, ids, weights)
        return forwarded
    w1, w2 = self.gate_up_proj, self.down_proj
    x = hidden_states.to(w1.dtype)  # under autocast the two can differ
    impl = choose(x, w1, w2, top_k_weights)
    _count(impl, "gradients or no kernel for this device" if impl == "reference" else None)
    act = ACT_NAMES[type(self.act_fn).__name__]
    prepared = getattr(self, PREPARED, None)
    out = fused_experts(x, w1, w2, top_k_index, top_k_weights, act=act, impl=impl, prepared=prepared)
    return out.to(hidden_states.dtype)


def prepare_model(model: torch.nn.Module, *, int8: bool = False, packed: bool = False) -> int:
    """Give each expert layer on the CPU its prepared weights (conclave.kernels.cpu.prepared); how many layers got them.

    With neither asked for, what an earlier call prepared is dropped. The model's own weights are never touched.
    """
    layers = [module for module in model.modules() if _is_experts(module) and unsupported(module) is None]
    layers = [layer for layer in layers if layer.gate_up_proj.device.type == "cpu"]
    for layer in layers:
        wanted = prepare(layer.gate_up_proj, layer.down_proj, int8=int8, packed=packed) if int8 or packed else None
        setattr(layer, PREPARED, wanted)
    return len(layers)


def _is_experts(module: Any) -> bool:
    return hasattr(module, "gate_up_proj") and hasattr(module, "down_proj") and hasattr(module, "_apply_gate")


def unsupported(experts: Any) -> str | None:
    """Why the kernels cannot compute this experts module, or None."""
    for flag, default in DEFAULT_LAYOUT.items():
        if getattr(experts, flag, default) != default:
            return f"{flag} is {not default}"
    if type(experts)._apply_gate is not _default_apply_gate:
        return "it has a gate of its own"
    if type(experts.act_fn).__name__ not in ACT_NAMES:
        return f"its activation is {type(experts.act_fn).__name__}"
    return None


def without_sentinels(ids: torch.Tensor, weights: torch.Tensor, *, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Slots without work as transformers' own paths can bear them: expert 0, times a weight of exactly 0.

    Their `grouped_mm` answers NaN to an id of E and silently wrong rows to -1 (5.23.0). One wasted product a slot is
    the price.
    """
    work = (ids >= 0) & (ids < experts)
    return torch.where(work, ids, 0), torch.where(work, weights, 0)


def _count(path: str, reason: str | None) -> None:
    key = f"{path}: {reason}" if reason else path
    if key not in PATHS:
        log.info("kernels.path", path=path, reason=reason)
    PATHS[key] += 1
