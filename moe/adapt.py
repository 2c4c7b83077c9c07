"""Finds the mixture-of-experts layers of a transformers model and puts a routing policy in the place of its own.

    adapted = adapt(model)                       # ValueError for a family that is not supported
    adapted.install(POLICIES.make({"name": "topp", "p": 0.5}))
    ...generate, train, read adapted.meter...
    adapted.uninstall()                          # the model is bit for bit what it was

Only the routers' `forward` is replaced, on the instances: classes, parameters, hooks and `state_dict` stay, so that
`output_router_logits`, `save_pretrained` and the choice of an experts implementation work as before. Parameters that a
policy adds (the gate rows of null experts) belong to the adapter and are saved beside the model, never into it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.functional import linear

from conclave.moe import step as steps
from conclave.moe.routing import POLICIES, GateStyle, Limits, Policy, Routing, Step, Tensor, route
from conclave.moe.trace import Meter

POLICY_FILE: Final = "conclave_policy.json"
WEIGHTS_FILE: Final = "conclave_policy.safetensors"


@dataclass(frozen=True, slots=True)
class Family:
    """How one model type of transformers names and computes its routing."""

    router: str  # class of `block.gate`
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    always_renormalises: bool = False
    wide_logits: bool = False  # the gate is multiplied in fp32
    wide_weights: bool = False  # the weights of the chosen experts stay fp32


FAMILIES: Final[Mapping[str, Family]] = {
    "mixtral": Family("MixtralTopKRouter", always_renormalises=True, wide_weights=True),
    "olmoe": Family("OlmoeTopKRouter"),
    "qwen2_moe": Family("Qwen2MoeTopKRouter"),
    "qwen3_moe": Family("Qwen3MoeTopKRouter"),
    "deepseek_v2": Family("DeepseekV2TopkRouter", wide_logits=True, wide_weights=True),
    "deepseek_v3": Family("DeepseekV3TopkRouter", scoring="sigmoid", wide_logits=True, wide_weights=True),
}


@dataclass(frozen=True, slots=True)
class MoeLayer:
    """One mixture-of-experts layer of the model: its router and its experts, as transformers made them."""

    number: int  # among the mixture-of-experts layers
    name: str  # of the block in the model
    router: Any
    experts: Any
    style: GateStyle

    @property
    def width(self) -> int:
        return int(self.router.num_experts)

    @property
    def native(self) -> Policy:
        """The policy that the layer was trained with."""
        router, k = self.router, int(self.router.top_k)
        grouped = getattr(router, "topk_method", "group" if hasattr(router, "num_group") else "greedy") != "greedy"
        if not grouped:
            return POLICIES.make({"name": "topk", "k": k})
        by = "top2" if self.style.scoring == "sigmoid" else "max"
        kept = {"groups": int(router.num_group), "groups_kept": int(router.topk_group), "by": by}
        return POLICIES.make({"name": "group_topk", "k": k} | kept)


@dataclass(frozen=True, slots=True)
class Saved:
    """A policy, and the gate rows that it added to each layer, as `Adapted.save` wrote them."""

    policy: Policy
    rows: Mapping[str, Tensor]  # by the layer's name


def saved(folder: Path) -> Saved | None:
    """What stands beside a model's files; None if nothing does. Raises ValueError that says what is wrong with it."""
    path = folder / POLICY_FILE
    if not path.is_file():
        return None
    try:
        policy = POLICIES.make(msgspec.json.decode(path.read_bytes(), type=dict[str, Any]))
        return Saved(policy, load_file(folder / WEIGHTS_FILE))
    except (ValueError, SafetensorError, OSError) as wrong:
        raise ValueError(f"the policy beside {folder} cannot be read: {type(wrong).__name__}: {wrong}") from None


def adapt(model: Any) -> "Adapted":
    """The model's mixture-of-experts layers. Raises ValueError that names what is supported."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    supported = ", ".join(sorted(FAMILIES))
    if not isinstance(kind, str) or kind not in FAMILIES:
        what = f"model type {kind!r}" if kind else f"a {type(model).__name__} without a transformers configuration"
        raise ValueError(f"{what} is not supported by the local expert; supported are {supported}")
    family = FAMILIES[kind]
    blocks = [
        (name, block)
        for name, block in model.named_modules()
        if type(getattr(block, "gate", None)).__name__ == family.router and hasattr(block, "experts")
    ]
    if not blocks:
        raise ValueError(f"this {kind} model has no mixture-of-experts layer with a {family.router} (all dense?)")
    layers = [
        MoeLayer(number, name, block.gate, block.experts, _style(family, block.gate))
        for number, (name, block) in enumerate(blocks)
    ]
    return Adapted(model, family, tuple(layers))


def _style(family: Family, router: Any) -> GateStyle:
    renormalise = family.always_renormalises or bool(getattr(router, "norm_topk_prob", False))
    return GateStyle(family.scoring, renormalise, float(getattr(router, "routed_scaling_factor", 1.0)))


class Adapted:
    """A model whose routing can be exchanged. One policy at a time; `meter` counts what it does."""

    def __init__(self, model: Any, family: Family, layers: tuple[MoeLayer, ...]) -> None:
        self.model = model
        self.layers = layers
        self.meter = Meter()
        self._family = family
        self._policy: Policy | None = None
        self._null: torch.nn.ParameterList = torch.nn.ParameterList()
        self._limits = Limits()
        self._generator: torch.Generator | None = None
        self._memories = steps.Memories()
        self._step: Step | None = None
        self._routings: list[Routing] = []
        self._hook: Any = None
        self._flags: list[bool] = []

    @property
    def policy(self) -> Policy | None:
        """What is installed; None: the model routes as it came."""
        return self._policy

    @property
    def native_experts(self) -> int:
        """Experts of one token over all layers, as the model came: what savings are measured against."""
        return sum(int(layer.router.top_k) for layer in self.layers)

    def install(
        self, policy: Policy, *, generator: torch.Generator | None = None, rows: Mapping[str, Tensor] | None = None
    ) -> None:
        """Route by `policy` from now on, with these gate rows of null experts in place of fresh ones.

        Raises ValueError if a layer cannot serve it; then nothing has changed.
        """
        for layer in self.layers:
            policy.check(layer.width)
        null = [_null_rows(layer, policy.null_experts, rows) for layer in self.layers]
        self.uninstall()
        self._policy, self._generator = policy, generator
        self._null = torch.nn.ParameterList(null)
        self._flags = [layer.experts._is_expert_parallel for layer in self.layers]
        for layer in self.layers:
            # transformers skips sentinels safely only under this flag: without it grouped_mm leaves rows unwritten.
            layer.experts._is_expert_parallel = True
            layer.router.forward = self._forward_of(layer)
        self._hook = _decoder(self.model).register_forward_pre_hook(self._begin, with_kwargs=True)

    def uninstall(self) -> None:
        """Give the routers back their own forward. Does nothing if no policy is installed."""
        if self._policy is None:
            return
        for layer, flag in zip(self.layers, self._flags, strict=True):
            del layer.router.forward
            layer.experts._is_expert_parallel = flag
        self._hook.remove()
        self._policy = self._hook = self._step = self._generator = None
        self._null = torch.nn.ParameterList()
        self._memories = steps.Memories()
        self._routings.clear()
        self.meter.reset()

    @contextmanager
    def installed(
        self, policy: Policy, *, generator: torch.Generator | None = None, rows: Mapping[str, Tensor] | None = None
    ) -> Iterator["Adapted"]:
        self.install(policy, generator=generator, rows=rows)
        try:
            yield self
        finally:
            self.uninstall()

    @contextmanager
    def limited(self, limits: Limits) -> Iterator[None]:
        """What the sequences of the batches inside may use. Raises RuntimeError if no policy is installed."""
        if self._policy is None:
            raise RuntimeError("limits are applied by an installed policy; install the layers' native one to keep it")
        before, self._limits = self._limits, limits
        try:
            yield
        finally:
            self._limits = before

    @property
    def routings(self) -> list[Routing]:
        """The last forward pass in training, layer by layer."""
        return list(self._routings)

    def parameters(self) -> list[Tensor]:
        """What the policy added to the model, for an optimiser."""
        return list(self._null)

    def loss(self) -> Tensor:
        """The policy's auxiliary loss of the last forward pass in training, mean over layers."""
        if self._policy is None or self._step is None or not self._routings:
            raise RuntimeError("there is an auxiliary loss after a forward pass in training with a policy installed")
        each = [self._policy.loss(routing, self._step) for routing in self._routings]
        return torch.stack(each).mean()

    def save(self, folder: Path) -> None:
        """Write the policy and the parameters it added beside the model's own files."""
        if self._policy is None:
            raise RuntimeError("no policy is installed, so there is none to save")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / POLICY_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(POLICIES.settings(self._policy))))
        rows = {layer.name: null.detach().contiguous() for layer, null in zip(self.layers, self._null, strict=True)}
        save_file(rows, folder / WEIGHTS_FILE)

    def load(self, folder: Path) -> None:
        """Install what `save` wrote. Raises ValueError if there is nothing, or it was made for another model."""
        if (found := saved(folder)) is None:
            raise ValueError(f"{folder} has no {POLICY_FILE}, so there is no policy to load")
        self.install(found.policy, rows=found.rows)

    def _begin(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._policy is None:
            raise RuntimeError("the hook outlived its policy")
        self._step = steps.read(
            steps.named(args, kwargs),
            policy=self._policy,
            limits=self._limits,
            memories=self._memories,
            generator=self._generator,
            training=module.training,
        )
        self._routings.clear()
        self.meter.begin(self._step)

    def _forward_of(self, layer: MoeLayer) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
        def forward(hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            hidden = hidden.reshape(-1, hidden.shape[-1])  # [T, d]
            routing = self._route(layer, hidden)
            logits = routing.logits[:, : layer.width]  # recorded by transformers, whose own loss knows no nulls
            weight = routing.weight if self._family.wide_weights else routing.weight.to(hidden.dtype)
            return logits, weight, routing.index

        return forward

    def _route(self, layer: MoeLayer, hidden: Tensor) -> Routing:
        policy, step = self._policy, self._step
        if policy is None or step is None:
            raise RuntimeError("a router ran outside the model's own forward pass")
        gate = layer.router.weight
        if policy.null_experts:
            gate = torch.cat([gate, self._null[layer.number].to(gate.dtype)])  # [E + m, d]
        wide = self._family.wide_logits
        logits = linear(hidden.float(), gate.float()) if wide else linear(hidden, gate)  # [T, E + m]
        routing = route(
            policy,
            hidden=hidden,
            logits=logits,
            gate=gate,
            experts=layer.width,
            style=layer.style,
            step=step,
            layer=layer.number,
            bias=getattr(layer.router, "e_score_correction_bias", None),
        )
        self.meter.add(layer.number, routing, step)
        if step.training:
            self._routings.append(routing)
        return routing


def _null_rows(layer: MoeLayer, nulls: int, given: Mapping[str, Tensor] | None) -> torch.nn.Parameter:
    """Gate rows of the null experts: those given, or the gate's own, repeated (AdaMoE's start). [m, d]"""
    gate = layer.router.weight.detach()
    rows = gate[torch.arange(nulls) % layer.width].clone()
    if given is not None:
        found = given.get(layer.name)
        if found is None or found.shape != rows.shape:
            raise ValueError(f"{WEIGHTS_FILE} does not fit the layer {layer.name}: made for another model?")
        rows.copy_(found)
    return torch.nn.Parameter(rows)


def _decoder(model: Any) -> Any:
    """The module that holds the layers, whose arguments have the mask and the cache by name."""
    return model.get_decoder() if hasattr(model, "get_decoder") else model
