"""The parts of `policy.routing` that a table of experts is made from: scores, a budget, what an answer is worth.

Values, checked for shape only. What they come to is in `table.py`.
"""

from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field, StringConstraints

from conclave.gateway.policy.part import CategoryName, ExpertName, Part


class Score(Part):
    """How good an expert is at a category, as measured."""

    score: float = Field(ge=0, le=1, description="The mean score of its answers, 0 to 1.")
    error: float = Field(default=0.0, ge=0, le=1, description="The standard error of that.")
    rows: int = Field(default=0, ge=0, description="How many answers it was measured on.")


class Budget(Part):
    """Limits of the table. What is hosted is counted once; the others are means over calls, by the weights."""

    hosted_b: float | None = Field(
        default=None,
        gt=0,
        description="Billion parameters of the table's experts that have a `size_b`; null: any.",
    )
    hosted_gb: float | None = Field(
        default=None, gt=0, description="Memory of the table's experts that have a `size_gb`; null: any."
    )
    usd_per_call: float | None = Field(default=None, gt=0, description="What a call may cost on average; null: any.")
    latency_ms: float | None = Field(default=None, gt=0, description="Mean of the experts' `latency_ms`; null: any.")
    active_b: float | None = Field(
        default=None, gt=0, description="Billion parameters at work in a call, on average; null: any."
    )


class CallTokens(Part):
    """What an average call reads and writes: it makes a price per call of a price per token."""

    input: int = Field(default=750, ge=0, le=10_000_000, description="Tokens that the expert reads.")
    output: int = Field(default=250, ge=0, le=10_000_000, description="Tokens that the expert writes.")


class Unsure(Part):
    """When the default row serves because the category is not certain."""

    below: float | None = Field(
        default=None, ge=0, le=1, description="A confidence below this is unsure; null: as the classifier says."
    )


class Quality(Part):
    """A trained head that expects a score of each expert on the very question."""

    folder: Path = Field(description="Where `conclave router fit` wrote it.")
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="Of its files, so that the policy says exactly what decides."
    )
    blend: float = Field(default=0.5, ge=0, le=1, description="Its share in the expected score; the rest: `scores`.")


Scores: TypeAlias = dict[CategoryName, dict[ExpertName, Score]]
Weights: TypeAlias = dict[CategoryName, Annotated[float, Field(ge=0, le=1e12)]]
