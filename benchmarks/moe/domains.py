"""Synthetic domains with a known floor: sparse random Markov chains over one vocabulary, told apart by a first token.

The tag must be combined with the current token to know the next one, so experts have something to specialise in. The
entropy of each chain is known, so a loss can be compared with the best that any model can reach.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

SYMBOLS = 64


@dataclass(frozen=True, slots=True)
class Domains:
    """`chains[d, a, b]` is the probability that b follows a in domain d."""

    chains: torch.Tensor  # [D, SYMBOLS, SYMBOLS]

    @staticmethod
    def make(number: int, *, seed: int, successors: int = 4, sharpness: tuple[float, ...] = (1.0,)) -> "Domains":
        """Each symbol has a few successors; a domain's sharpness (cycled) says how uneven their chances are."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(number, SYMBOLS, SYMBOLS, generator=generator)
        kept = noise.topk(successors, dim=-1).indices  # [D, S, successors]
        tempers = torch.tensor(sharpness).repeat(number)[:number].view(-1, 1, 1)
        chances = (torch.randn(number, SYMBOLS, successors, generator=generator) * tempers).softmax(dim=-1)
        return Domains(torch.zeros_like(noise).scatter_(-1, kept, chances))

    @property
    def vocabulary(self) -> int:
        return SYMBOLS + self.chains.shape[0]

    def floor(self) -> torch.Tensor:
        """Entropy of each chain under its own long-run distribution, in nats. [D]"""
        state = torch.full(self.chains.shape[:2], 1 / SYMBOLS)
        for _ in range(200):
            state = torch.einsum("ds,dst->dt", state, self.chains)
        each = -(self.chains * self.chains.clamp(min=1e-12).log()).sum(dim=-1)  # [D, S]
        return (state * each).sum(dim=-1)

    def batches(
        self, *, seed: int, rows: int = 32, length: int = 48, domain: int | None = None
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Without end. The first label is the tag's, which nothing could foretell: it is left out."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            which = torch.randint(self.chains.shape[0], (rows,), generator=generator)
            if domain is not None:
                which.fill_(domain)
            at = torch.randint(SYMBOLS, (rows,), generator=generator)
            tokens = [SYMBOLS + which, at]
            for _ in range(length - 2):
                at = torch.multinomial(self.chains[which, at], 1, generator=generator).squeeze(1)
                tokens.append(at)
            ids = torch.stack(tokens, dim=1)  # [rows, length]
            labels = ids.clone()
            labels[:, :2] = -100
            yield {"input_ids": ids, "labels": labels}
