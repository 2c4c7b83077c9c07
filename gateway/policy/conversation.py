"""The policy's `routing.conversation`: how much of a conversation counts when the expert for its next turn is chosen.

A value, checked for shape only; `router/conversation.py` says what it means for a call.
"""

from pydantic import Field

from conclave.gateway.policy.part import Flag, Part
from conclave.router.conversation import Rule


class ConversationSettings(Part):
    """What of a conversation counts, beside its last turn."""

    turns: int = Field(
        default=4, ge=0, le=16, description="Earlier user turns that a follow-up may take its subject from; 0: none."
    )
    decay: float = Field(
        default=0.5, gt=0, le=1, description="What a turn counts, for each one with a subject that came after it."
    )
    stick: Flag = Field(
        default=True, description="Stay with the expert that answered before, where that is worth more."
    )
    handoff: float = Field(
        default=0.05, ge=0, le=1, description="The gain in expected score that changing the expert must bring."
    )

    def rule(self) -> Rule:
        """As choices are made by it."""
        return Rule(turns=self.turns, decay=self.decay, stick=self.stick, handoff=self.handoff)
