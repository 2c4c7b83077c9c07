"""The policy's `turns`: what a conversation's turns show together, and what follows.

A value, checked for shape only; `safety/detect/turns.py` and `crescendo.py` do the looking, `posture.py` compiles it.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from conclave.gateway.policy.part import Part

Example = Annotated[str, StringConstraints(min_length=1, max_length=1024, strip_whitespace=True)]
TopicName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class CrescendoSettings(Part):
    """Topics that a conversation may climb towards, turn by turn."""

    topics: dict[TopicName, Annotated[tuple[Example, ...], Field(min_length=4, max_length=200)]] = Field(
        default_factory=dict, max_length=32, description="What is not served: a name, and questions of that kind."
    )
    scope: tuple[Example, ...] = Field(
        default=(), max_length=1000, description="Questions that the application is for: turns closer to them pass."
    )
    action: Literal["observe", "annotate", "block"] = Field(
        default="observe", description="What follows where a conversation has climbed."
    )
    threshold: float = Field(default=0.3, gt=0, le=10, description="The cumulative closeness from which it has.")


class TurnsSettings(Part):
    """What the last turns of a conversation show together."""

    last: int = Field(
        default=6, ge=0, le=12, description="User turns that are read as one text, too, by the learned checks; 0: none."
    )
    crescendo: CrescendoSettings = Field(
        default_factory=CrescendoSettings, description="Conversations that climb towards a topic; without topics none."
    )
