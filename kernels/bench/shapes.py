"""The expert layers that are measured, and the least time that each could take: the floor a result is held against.

    floor = max(bytes / bandwidth, operations / rate)

Bytes count the experts that a routing really activates, once each, and the activations; both rates are measured in the
same run.
"""

from dataclasses import dataclass

FUSED_TOKENS = 64  # up to which the sum over slots needs no pass over memory of its own
BF16_BYTES = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """One model's expert layer; its routed experts only."""

    name: str
    hidden: int
    inter: int
    experts: int
    top_k: int

    def bytes_moved(self, tokens: int, *, active: int) -> int:
        """Weights of the active experts, x, out, h written and read; y written and read above 64 tokens."""
        slots = tokens * self.top_k
        passing = 2 * tokens * self.hidden + 2 * slots * self.inter
        passing += 2 * slots * self.hidden if tokens > FUSED_TOKENS else 0
        return BF16_BYTES * (active * 3 * self.hidden * self.inter + passing)

    def operations(self, tokens: int) -> int:
        return tokens * self.top_k * 6 * self.hidden * self.inter

    def floor_s(self, tokens: int, *, active: int, bytes_s: float, operations_s: float) -> float:
        return max(self.bytes_moved(tokens, active=active) / bytes_s, self.operations(tokens) / operations_s)


SHAPES = (
    Shape("OLMoE-1B-7B", 2048, 1024, 64, 8),
    Shape("Qwen3-30B-A3B", 2048, 768, 128, 8),
    Shape("Mixtral-8x7B", 4096, 14336, 8, 2),
    Shape("DeepSeek-V2-Lite", 2048, 1408, 64, 6),
    Shape("DeepSeek-V3", 7168, 2048, 256, 8),
)
