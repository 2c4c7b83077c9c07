"""The policy's `topics`: what texts may not be about, or what alone they may be about, by examples of each.

A value, checked for shape only; `safety/detect/topics.py` learns from the examples when the policy is put in force.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field, StringConstraints

from conclave.gateway.policy.classifier import ClassifierSettings, opened
from conclave.gateway.policy.part import CATEGORY, Part
from conclave.gateway.policy.source import Loc, Problem, dotted

if TYPE_CHECKING:
    from conclave.gateway.policy.document import PolicyDocument
    from conclave.gateway.policy.load import Where

LEAST: Final = 8
TopicName = Annotated[str, StringConstraints(pattern=CATEGORY)]
Example = Annotated[str, StringConstraints(min_length=1, max_length=4096, strip_whitespace=True)]


class Topic(Part):
    """A topic, by what people say when they talk about it."""

    examples: tuple[Example, ...] = Field(
        min_length=LEAST, max_length=1000, description=f"Texts about it, {LEAST} at least, as different as they come."
    )


def examples_of(topics: Mapping[str, Topic]) -> dict[str, Sequence[str]]:
    """Each topic's examples."""
    return {name: topic.examples for name, topic in topics.items()}


TopicsByName = Annotated[dict[TopicName, Topic], Field(max_length=32)]


class TopicSettings(Part):
    """What the check `topics` looks for. Without a topic it finds nothing."""

    deny: TopicsByName = Field(
        default_factory=dict, description="What users may not ask about; a find is of the kind `topic.<name>`."
    )
    allow_only: TopicsByName = Field(
        default_factory=dict,
        description="All that users may ask about; anything else is a find of the kind `topic.off_scope`.",
    )


def unlearnable(document: "PolicyDocument", where: "Where", classifier: ClassifierSettings) -> Iterator[Problem]:
    """Topics that cannot be learned from their examples."""
    named: dict[Loc, TopicSettings | None] = {("topics",): document.topics}
    named |= {("tenants", name, "topics"): tenant.topics for name, tenant in document.tenants.items()}
    for below, topics in named.items():
        if topics is None or not (topics.deny or topics.allow_only):
            continue
        from conclave.safety.detect.topics import Space, TopicError, learned  # noqa: PLC0415  for those who have any

        router = opened(classifier)
        for key, given in (("deny", topics.deny), ("allow_only", topics.allow_only)):
            loc: Loc = ("policy", *below, key)
            try:
                learned(Space(router.encode, router.background), examples_of(given))
            except TopicError as error:
                at = (*loc, error.topic, "examples")
                yield Problem(where(at), dotted(at), error.words)
