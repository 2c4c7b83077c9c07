"""The policy's `routing`: what is known of the experts, what they may cost, and how a choice may be second-guessed.

A value, checked for shape only, as the rest of the document.
"""

from typing import Self

from pydantic import Field, model_validator

from conclave.gateway.policy.cascade import CascadeSettings
from conclave.gateway.policy.conversation import ConversationSettings
from conclave.gateway.policy.overlay import Overlay, OverlayError, Split, TrialName, laid_over
from conclave.gateway.policy.own import OwnCategories
from conclave.gateway.policy.part import CategoryName, ExpertName, Part
from conclave.gateway.policy.scored import Budget, CallTokens, Quality, Scores, Unsure, Weights
from conclave.gateway.policy.source import Loc


class Routing(Part):
    """How an expert is chosen where the policy's `categories` do not say it."""

    scores: Scores = Field(
        default_factory=dict,
        description="How good each expert is, by category; `any`: over all. None: the table is `categories` alone.",
    )
    weights: Weights = Field(
        default_factory=dict,
        description="How many of the calls are of a category, in any unit; `any`: unsure ones. Not said: 1.",
    )
    budget: Budget = Field(default_factory=Budget, description="What the table made from `scores` may take.")
    tokens: CallTokens = Field(default_factory=CallTokens, description="The size of an average call.")
    answer_worth_usd: float | None = Field(
        default=None,
        ge=1e-6,
        le=1e9,
        description="What a wholly right answer is worth; null: cost counts only in the budget.",
    )
    pins: dict[CategoryName, ExpertName] = Field(
        default_factory=dict, description="Categories whose first expert no score decides."
    )
    bans: dict[ExpertName, tuple[CategoryName, ...]] = Field(
        default_factory=dict, description="Experts, each with the categories that `auto` never gives it."
    )
    unsure: Unsure = Field(default_factory=Unsure, description="When the category is not certain enough.")
    quality: Quality | None = Field(
        default=None, description="Scores of the very question, beside those of its category; null: none."
    )
    own_categories: OwnCategories = Field(
        default_factory=dict, description="Categories of your own, by name; rows of `categories` may name them."
    )
    conversation: ConversationSettings = Field(
        default_factory=ConversationSettings, description="What of a conversation counts, beside its last turn."
    )
    cascade: CascadeSettings | None = Field(
        default=None, description="A weaker expert is asked first, and judged by how sure it was; null: none is."
    )
    split: Split | None = Field(default=None, description="An A/B test of another way to choose; null: none.")
    shadow: dict[TrialName, Overlay] = Field(
        default_factory=dict, description="Other ways to choose, scored on the live calls and never followed, by name."
    )

    @model_validator(mode="after")
    def _overlays_fit(self) -> Self:
        named: dict[Loc, Overlay] = {("shadow", name): overlay for name, overlay in self.shadow.items()}
        for loc, overlay in (named | ({("split",): self.split} if self.split is not None else {})).items():
            try:
                laid_over(self, overlay)
            except OverlayError as error:
                raise OverlayError(error.words, (*loc, *error.loc)) from error
        return self
