"""One answer as it grows: tokens in, visible text out, until its end, its stop string, its deadline or its client's.

It decides where an answer ends and what it cost. It never chooses a token.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers.decoders import DecodeStream

from conclave.moe.adapt import Adapted
from conclave.moe.checkpoint import Checkpoint
from conclave.moe.errors import DeadlineExceeded
from conclave.moe.handoff import End, Handoff, Piece, TokenLikely, Usage
from conclave.moe.sampling import Likely
from conclave.moe.stops import StopText
from conclave.moe.trace import RowUse


@dataclass(frozen=True, slots=True)
class Words:
    """What the tokenizer knows, as far as an answer needs it."""

    tokenizer: Any  # of the library tokenizers
    special: tuple[str, ...]
    ends: frozenset[int]

    @staticmethod
    def of(checkpoint: Checkpoint, ends: tuple[int, ...]) -> "Words":
        longest_first = sorted(map(str, checkpoint.tokenizer.all_special_tokens), key=len, reverse=True)
        return Words(checkpoint.tokenizer.backend_tokenizer, tuple(longest_first), frozenset(ends))

    def plain(self, text: str) -> str:
        """`text` with no special token in it: nobody opens a role of their own by writing its mark."""
        for mark in self.special:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return text

    def text(self, token: int) -> str:
        """One token by itself, special ones too."""
        return str(self.tokenizer.decode([token], skip_special_tokens=False))


@dataclass(frozen=True, slots=True)
class Cost:
    """What the model spends on one token as it came, to measure savings by."""

    layers: int
    native_experts: int  # of one token, over all layers
    expert_flops: int  # one expert, one token: two for each weight

    @staticmethod
    def of(adapted: Adapted) -> "Cost":
        first = adapted.layers[0]
        weights = sum(weight.numel() for weight in first.experts.parameters())
        return Cost(len(adapted.layers), adapted.native_experts, 2 * weights // first.width)

    def usage(self, *, prompt: int, completion: int, tokens: int, experts: int) -> Usage:
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            experts_per_token=round(experts / max(tokens * self.layers, 1), 3),
            flops_saved=(self.native_experts * tokens - experts) * self.expert_flops,
        )


class Growing:
    """One answer. Used by the thread that generates it, and by nobody else."""

    def __init__(  # noqa: PLR0913  each is one fact of the call, all keyword-only
        self,
        handoff: Handoff,
        *,
        words: Words,
        cost: Cost,
        prompt_tokens: int,
        most: int,
        stops: tuple[str, ...],
        clock: Callable[[], float],
    ) -> None:
        self.handoff = handoff
        self.most = most
        self._words, self._cost, self._clock = words, cost, clock
        self._prompt_tokens = prompt_tokens
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._visible = StopText(stops)
        self._pending: list[TokenLikely] = []
        self._tokens = self._experts = self._written = 0

    def wanted(self) -> bool:
        """Whether to go on. Raises DeadlineExceeded."""
        if self._clock() > self.handoff.deadline:
            raise DeadlineExceeded("the answer took longer than a call may take")
        return not self.handoff.left

    def add(self, token: int, likely: Likely | None, used: RowUse) -> bool:
        """One more token, and what the pass that made it used; True if it was the last."""
        self._tokens += used.tokens[0]
        self._experts += used.experts[0]
        self._written += 1
        if not self.wanted():
            return True
        ended = token in self._words.ends
        if not ended:
            if likely is not None:
                self._pending.append(self._named(token, likely))
            self._show(self._visible.feed(self._decoder.step(self._words.tokenizer, token) or ""))
        done = ended or self._visible.stopped or self._written >= self.most
        if done:
            self._finish(stopped=ended or self._visible.stopped)
        return done

    def _finish(self, *, stopped: bool) -> None:
        if not self._visible.stopped:
            self._show(self._visible.finish(), last=True)
        usage = self._cost.usage(
            prompt=self._prompt_tokens, completion=self._written, tokens=self._tokens, experts=self._experts
        )
        self.handoff.write(End("stop" if stopped else "length", usage), now=self._clock())

    def _show(self, text: str, *, last: bool = False) -> None:
        if text or (last and self._pending):
            self.handoff.write(Piece(text, tuple(self._pending)), now=self._clock())
            self._pending.clear()

    def _named(self, token: int, likely: Likely) -> TokenLikely:
        top = tuple((self._words.text(other), logprob) for other, logprob in likely.top)
        return TokenLikely(self._words.text(token), likely.logprob, top)
