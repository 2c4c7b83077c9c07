"""Chooses the next token of one sequence: greedy or at random, with the call's own dice, and says how likely it was.

It decides one token at a time from the model's scores, and refuses scores that are no numbers. Randomness comes from
a generator of the call's own, so that a seed gives the same text whatever other calls run; `generate` is left to pick
the highest score, which after adding Gumbel noise is a draw from the distribution (Gumbel 1954; Maddison et al. 2014,
arXiv 1411.0030).
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper

from conclave.moe.errors import NotFinite
from conclave.moe.routing import Tensor

COLDEST: Final = 1e-5  # below it every draw is the likeliest token, and scores that are divided by it overflow


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one call wants its tokens chosen. `temperature` 0 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_logprobs: int | None = None  # None: no logprobs at all; 0: of the chosen tokens only


@dataclass(frozen=True, slots=True)
class Likely:
    """A token's log-probability by the model, before temperature and top_p, and those of the likeliest tokens."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class Sampler(LogitsProcessor):  # type: ignore[misc]  # transformers is not typed here
    """The last word on a sequence's scores; `likely(token)` afterwards tells how likely the chosen one was."""

    def __init__(self, how: Sampling, *, device: torch.device | str) -> None:
        self._top_logprobs = how.top_logprobs
        self._warpers: list[Any] = []
        self._dice: torch.Generator | None = None
        self._raw: Tensor | None = None
        if how.temperature >= COLDEST:
            self._warpers.append(TemperatureLogitsWarper(how.temperature))
            if how.top_p < 1:
                self._warpers.append(TopPLogitsWarper(how.top_p))
            self._dice = torch.Generator(device=device).manual_seed(how.seed)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[1, V] -> [1, V], the highest of which is the next token. Raises NotFinite."""
        if bool(torch.isnan(scores).any() | torch.isposinf(scores).any()):
            raise NotFinite("the model's scores for the next token are not finite; this answer cannot go on")
        self._raw = scores if self._top_logprobs is not None else None
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        return scores if self._dice is None else scores + self._noise(scores)

    def likely(self, token: int) -> Likely | None:
        """Of the token chosen last; None if the call did not ask."""
        if self._raw is None or self._top_logprobs is None:
            return None
        logprobs = torch.log_softmax(self._raw[0].float(), dim=-1)  # [V]
        best = torch.topk(logprobs, self._top_logprobs)
        top = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return Likely(float(logprobs[token]), tuple(top))

    def _noise(self, scores: Tensor) -> Tensor:
        noise = torch.empty_like(scores).exponential_(generator=self._dice)  # [1, V]
        return -noise.log()  # Gumbel: minus the log of an exponential
