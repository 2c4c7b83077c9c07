"""Tiny random models of every supported family. Skipped, with the reason, where torch or transformers is missing."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MISSING = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]

SMALL = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 24,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,  # wide enough that the gates prefer something
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LATENT_ATTENTION = {
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
}
GROUPS = {"n_routed_experts": 8, "n_shared_experts": 1, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1}

FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 8},
    "olmoe": {"num_experts": 8},
    "qwen2_moe": {"num_experts": 8, "shared_expert_intermediate_size": 24, "decoder_sparse_step": 1},
    "qwen3_moe": {"num_experts": 8, "norm_topk_prob": True, "head_dim": 16, "decoder_sparse_step": 1},
    "deepseek_v2": {**LATENT_ATTENTION, **GROUPS, "topk_method": "group_limited_greedy", "routed_scaling_factor": 1.5},
    "deepseek_v3": {**LATENT_ATTENTION, **GROUPS, "norm_topk_prob": True, "routed_scaling_factor": 2.5},
}


class Absent(pytest.Module):
    """A test module that cannot be imported here."""

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        pytest.skip(f"the local expert needs the extra `moe` ({', '.join(MISSING)})", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return Absent.from_parent(parent, path=module_path) if MISSING else None


def tiny(kind: str, *, seed: int = 0, **changes: Any) -> Any:
    """A random model of the family, in evaluation mode. DeepSeek's first layer is dense, as in the real ones."""
    import torch  # noqa: PLC0415  this file must load without it, to say why tests are skipped
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415  as above

    layers = {"num_hidden_layers": 3} if kind.startswith("deepseek") else {}
    config = AutoConfig.for_model(kind, **{**SMALL, **FAMILIES[kind], **layers, **changes})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    if kind == "deepseek_v3":  # a trained one has such a bias; it counts for the choice, not for the weights
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(torch.linspace(-0.2, 0.2, buffer.numel()))
    return model.eval()


@pytest.fixture
def ask() -> Callable[..., Any]:
    """Route tokens whose gate gives these probabilities, [T][E + m]: `ask(policy, probabilities, ...) -> Routing`."""
    import torch  # noqa: PLC0415  as above

    from conclave.moe.routing import POLICIES, GateStyle, Step, route  # noqa: PLC0415

    def routed(
        settings: Any,
        probabilities: list[list[float]],
        *,
        style: Any = None,
        step: Any = None,
        experts: int | None = None,
    ) -> Any:
        policy = POLICIES.make(settings) if isinstance(settings, dict | str) else settings
        logits = torch.tensor(probabilities).log()
        experts = experts or logits.shape[1] - policy.null_experts
        hidden = torch.eye(logits.shape[1])[torch.zeros(len(logits), dtype=torch.int64)]
        return route(
            policy,
            hidden=hidden,
            logits=logits,
            gate=torch.eye(logits.shape[1]),
            experts=experts,
            style=style or GateStyle(),
            step=step or Step.whole(1, len(logits)),
            layer=0,
        )

    return routed


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def build() -> Callable[..., Any]:
    return tiny
