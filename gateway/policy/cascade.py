"""The policy's `routing.cascade`: a weaker expert is asked first, and a stronger one where it was not sure enough.

A value, checked for shape only; `router/gates/cascade.py` says what it means for an answer.
"""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from conclave.gateway.policy.part import Category, ExpertName, Part
from conclave.router.gates.cascade import Cascade, Evidence

Share = Annotated[float, Field(ge=0, le=1)]


class JudgedAnswer(Part):
    """How it is told whether an answer is sure enough."""

    below: Share = Field(default=0.7, description="An answer with less confidence is not shown.")
    evidence: tuple[Evidence, ...] = Field(
        default=("label", "logprobs"),
        min_length=1,
        description="What tells the confidence: `label`, `logprobs`, `first_token`, `agreement`; the first one that an "
        "answer gives counts.",
    )
    samples: int = Field(default=1, ge=1, le=8, description="Answers that are compared for `agreement`; 1: none are.")
    curve: tuple[tuple[Share, Share], ...] = Field(
        default=(),
        description="Confidence to the probability of a right answer, as `conclave router calibrate-cascade` has it.",
    )

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if "agreement" in self.evidence and self.samples == 1:
            raise ValueError("agreement compares samples: set samples to 2 or more, or leave agreement out")
        if "agreement" not in self.evidence and self.samples > 1:
            raise ValueError("samples are asked for to see whether they agree: add agreement to evidence")
        if len(set(self.evidence)) < len(self.evidence):
            raise ValueError("evidence names the same thing twice")
        rising = all(left[0] < right[0] and left[1] <= right[1] for left, right in pairwise(self.curve))
        if not rising:
            raise ValueError("the points of curve must rise: a confidence stands once, and more of it never means less")
        return self


class CascadeSettings(JudgedAnswer):
    """A weaker expert answers on trial, and a stronger one where that answer is not sure enough."""

    weak: ExpertName | None = Field(default=None, description="Who is asked first; null: the first of the row.")
    strong: ExpertName | None = Field(
        default=None, description="Who is asked where the weak one is unsure; null: the first of the row but for it."
    )
    categories: tuple[Category, ...] = Field(default=(), description="Only questions of these; none: all questions.")
    without_evidence: Literal["accept", "escalate"] = Field(
        default="accept", description="What becomes of an answer that gives no evidence: `accept`, `escalate`."
    )
    trial_s: float = Field(
        default=30.0, gt=0, le=3600, description="How long a trial may take in all; then the strong expert is asked."
    )

    @model_validator(mode="after")
    def _has_two(self) -> Self:
        if self.weak is not None and self.weak == self.strong:
            raise ValueError("weak and strong are the same expert; a second opinion needs another one")
        return self


def compiled(settings: CascadeSettings | None) -> Cascade | None:
    """As answers are judged by it."""
    if settings is None:
        return None
    return Cascade(
        below=settings.below,
        weak=settings.weak,
        strong=settings.strong,
        evidence=settings.evidence,
        samples=settings.samples,
        categories=frozenset(settings.categories),
        without_evidence=settings.without_evidence,
        curve=settings.curve,
        trial_s=settings.trial_s,
    )
