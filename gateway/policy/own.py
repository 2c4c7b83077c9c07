"""The policy's `routing.own_categories`: what a category of your own looks like, and whether it can be learned.

The learning itself is the classifier's. It happens when a policy is read, to say what is wrong with it, and again when
it is put in force; no shipped category is changed by it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Protocol

from pydantic import Field, StringConstraints

from conclave.gateway.policy.classifier import ClassifierSettings, opened
from conclave.gateway.policy.part import CategoryName, Part
from conclave.gateway.policy.source import Loc, Problem, dotted

if TYPE_CHECKING:
    from conclave.gateway.policy.load import Where
    from conclave.router.api import Classification

Example = Annotated[str, StringConstraints(min_length=1, max_length=4096, strip_whitespace=True)]


class OwnCategory(Part):
    """A category that Conclave does not ship, learned from questions that belong to it."""

    examples: tuple[Example, ...] = Field(
        min_length=8, max_length=1000, description="Questions of this category as people ask them, 8 at least."
    )


OwnCategories = Annotated[dict[CategoryName, OwnCategory], Field(max_length=32)]


class Taught(Protocol):
    """A classifier that knows the new categories, too."""

    def classify(self, text: str, /) -> "Classification": ...


class Teach(Protocol):
    """Makes one of the shipped classifier; raises ValueError for examples that teach nothing."""

    def __call__(self, examples: Mapping[str, Sequence[str]], /) -> Taught: ...


def examples_of(own: Mapping[str, OwnCategory]) -> dict[str, Sequence[str]]:
    """Each category's examples."""
    return {name: category.examples for name, category in own.items()}


def untaught(
    own: Mapping[str, OwnCategory], where: "Where", classifier: ClassifierSettings | None = None
) -> Iterator[Problem]:
    """Categories that cannot be learned from their examples, or that have a shipped one's name."""
    if not own:
        return
    classifier = classifier or ClassifierSettings()
    try:
        router = opened(classifier)
    except (OSError, ValueError) as error:
        yield Problem(where(("server", "classifier")), "server.classifier", str(error))
        return
    for name, category in own.items():
        loc: Loc = ("policy", "routing", "own_categories", name)
        try:
            router.taught({name: category.examples})
        except ValueError as error:
            yield Problem(where(loc), dotted(loc), str(error))
