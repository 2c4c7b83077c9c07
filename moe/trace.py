"""Counts of what routing did: load, null share and gate entropy by layer, experts used by sequence.

Numbers only: which text the tokens stood for never comes here. Sums stay on the device until somebody reads them, so
that counting costs no synchronisation.
"""

from dataclasses import dataclass

import torch

from conclave.moe.routing import Routing, Step, Tensor


@dataclass(frozen=True, slots=True)
class LayerUse:
    """One layer since the last reset."""

    layer: int
    tokens: int
    load: tuple[float, ...]  # share of all expert runs, by expert
    entropy: float  # of the gate, in nats, mean over tokens
    null_share: float  # of the slots that the policy filled, those that run nothing
    experts_per_token: float


@dataclass(frozen=True, slots=True)
class RowUse:
    """The last forward pass, a row for each sequence: what a caller's usage is added up from."""

    tokens: tuple[int, ...]
    experts: tuple[int, ...]  # expert runs, summed over layers


class Meter:
    """Adds up routings; one for an installed policy or a block."""

    def __init__(self) -> None:
        self._layers: dict[int, dict[str, Tensor]] = {}
        self._rows: Tensor | None = None
        self._row_tokens: Tensor | None = None

    def begin(self, step: Step) -> None:
        """A new forward pass: the rows start at nothing."""
        self._rows = torch.zeros(step.batch, dtype=torch.int64, device=step.real.device)
        self._row_tokens = step.real.sum(dim=1)

    def add(self, layer: int, routing: Routing, step: Step) -> None:
        with torch.no_grad():
            real = step.real.reshape(-1)
            runs = (routing.index < routing.experts) & real.unsqueeze(-1)  # [T, K]
            load = torch.zeros(routing.experts, device=real.device, dtype=torch.int64)
            load.index_add_(0, routing.index.clamp(max=routing.experts - 1).reshape(-1), runs.reshape(-1).long())
            scores = routing.scores / routing.scores.sum(dim=-1, keepdim=True).clamp(min=1e-9)
            entropy = -(scores * scores.clamp(min=1e-9).log()).sum(dim=-1)  # [T]
            found = {
                "load": load,
                "tokens": real.sum(),
                "entropy": (entropy * real).sum(),
                "slots": real.sum() * routing.index.shape[1],
            }
            kept = self._layers.setdefault(layer, {})
            for name, value in found.items():
                kept[name] = kept[name] + value if name in kept else value
            if self._rows is not None:
                self._rows += runs.sum(dim=-1).view(step.batch, step.length).sum(dim=1)

    def layers(self) -> tuple[LayerUse, ...]:
        """Reads the sums; on a GPU this waits for it."""
        return tuple(self._use(layer, sums) for layer, sums in sorted(self._layers.items()))

    def rows(self) -> RowUse:
        if self._rows is None or self._row_tokens is None:
            return RowUse((), ())
        return RowUse(tuple(self._row_tokens.tolist()), tuple(self._rows.tolist()))

    def reset(self) -> None:
        self._layers.clear()
        self._rows = self._row_tokens = None

    @property
    def experts_per_token(self) -> float:
        """Mean over layers and tokens since the last reset; 0 before the first token."""
        layers = self.layers()
        return sum(use.experts_per_token for use in layers) / len(layers) if layers else 0.0

    @staticmethod
    def _use(layer: int, sums: dict[str, Tensor]) -> LayerUse:
        tokens, runs, slots = int(sums["tokens"]), int(sums["load"].sum()), int(sums["slots"])
        return LayerUse(
            layer=layer,
            tokens=tokens,
            load=tuple((sums["load"] / max(runs, 1)).tolist()),
            entropy=float(sums["entropy"]) / max(tokens, 1),
            null_share=1.0 - runs / max(slots, 1),
            experts_per_token=runs / max(tokens, 1),
        )
