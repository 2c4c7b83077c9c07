"""A causal language model around our own block: OLMoE's attention, embeddings and caching, with `MoEBlock` inside.

It is what policies are trained with that no published family has. `register()` makes transformers' Auto classes know
it; `save_pretrained`, `from_pretrained`, `generate` and `output_router_logits` work as for any model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, OlmoeConfig, OlmoeForCausalLM, OlmoeModel
from transformers import initialization as init
from transformers.modeling_outputs import MoeCausalLMOutputWithPast
from transformers.models.olmoe.modeling_olmoe import OlmoePreTrainedModel
from transformers.utils.output_capturing import OutputRecorder

from conclave.moe import step as steps
from conclave.moe.block import BlockSpec, Gate, MoEBlock
from conclave.moe.experts import FfnExperts, LatentExperts
from conclave.moe.routing import Limits, Tensor
from conclave.moe.trace import Meter


class ConclaveMoeConfig(OlmoeConfig):  # type: ignore[misc]  # transformers is not typed here
    """OLMoE's configuration and `block`, the settings of `BlockSpec`."""

    model_type = "conclave_moe"

    block: dict[str, Any] | None = None
    router_aux_loss_coef: float = 0.0  # transformers' own loss; the policies bring theirs

    @property
    def spec(self) -> BlockSpec:
        return BlockSpec.of(self.block or {})


class ConclaveMoeModel(OlmoeModel):  # type: ignore[misc]  # as above
    """OLMoE's decoder with our block in each layer."""

    config_class = ConclaveMoeConfig
    _can_record_outputs = {  # noqa: RUF012  a class attribute in transformers too
        **OlmoePreTrainedModel._can_record_outputs,
        "router_logits": OutputRecorder(Gate, index=0),
    }

    def __init__(self, config: ConclaveMoeConfig) -> None:
        super().__init__(config)
        for number, layer in enumerate(self.layers):
            layer.mlp = MoEBlock(config.spec, width=config.hidden_size, layer=number, config=config)
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        super()._init_weights(module)
        _start(module, self.config.initializer_range)


class ConclaveMoeForCausalLM(OlmoeForCausalLM):  # type: ignore[misc]  # as above
    """The loss in training is cross-entropy plus the policy's auxiliary loss, mean over layers."""

    config_class = ConclaveMoeConfig

    def __init__(self, config: ConclaveMoeConfig) -> None:
        config.num_experts = config.spec.experts
        super().__init__(config)
        self.model = ConclaveMoeModel(config)
        self.meter = Meter()
        self.limits = Limits()
        self.generator: torch.Generator | None = None
        self._memories = steps.Memories()
        self.model.register_forward_pre_hook(self._begin, with_kwargs=True)
        self.post_init()

    @property
    def blocks(self) -> list[MoEBlock]:
        return [layer.mlp for layer in self.model.layers]

    @contextmanager
    def limited(self, limits: Limits) -> Iterator[None]:
        """What the sequences of the batches inside may use."""
        before, self.limits = self.limits, limits
        try:
            yield
        finally:
            self.limits = before

    def forward(  # noqa: PLR0913, PLR0917  generate looks for these names
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> MoeCausalLMOutputWithPast:
        """As OlmoeForCausalLM, but for `aux_loss`: that is the policy's, where transformers' knows only top-k."""
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(out.last_hidden_state[:, kept])  # [B, S, V]
        loss = auxiliary = None
        if self.training:
            auxiliary = torch.stack([block.loss() for block in self.blocks]).mean()
        if labels is not None:
            loss = self.loss_function(logits, labels, self.vocab_size)
            loss = loss if auxiliary is None else loss + auxiliary
        return MoeCausalLMOutputWithPast(
            loss=loss,
            aux_loss=auxiliary,
            logits=logits,
            past_key_values=out.past_key_values,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
            router_logits=out.router_logits,
        )

    def _init_weights(self, module: Any) -> None:
        super()._init_weights(module)
        _start(module, self.config.initializer_range)

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return True  # transformers looks for its decorator in this file, and it is used in experts.py

    def _begin(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        step = steps.read(
            steps.named(args, kwargs),
            policy=self.blocks[0].policy,
            limits=self.limits,
            memories=self._memories,
            generator=self.generator,
            training=module.training,
        )
        self.meter.begin(step)
        for block in self.blocks:
            block.step = step
            block.meter = self.meter


def _start(module: Any, spread: float) -> None:
    """First weights of our own modules; what came from a file is left alone (transformers' init sees to it)."""
    if isinstance(module, FfnExperts | LatentExperts | Gate):
        for weights in module.parameters(recurse=False):
            init.normal_(weights, mean=0.0, std=spread)


def register() -> None:
    """Tell transformers' Auto classes about `conclave_moe`. May be called again."""
    AutoConfig.register(ConclaveMoeConfig.model_type, ConclaveMoeConfig, exist_ok=True)
    AutoModelForCausalLM.register(ConclaveMoeConfig, ConclaveMoeForCausalLM, exist_ok=True)
