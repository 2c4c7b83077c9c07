"""Another way to choose, beside the policy's own: tried on a share of the conversations, or only thought through.

An overlay says what is different and nothing else. Laid over the policy's routing it is checked as that is, so what was
tried can be made the policy by moving its keys. It never widens reach: tenants, keys and experts stay as they are.
"""

import hashlib
from typing import TYPE_CHECKING, Annotated, Final, Self, TypeVar

import msgspec
from pydantic import Field, JsonValue, StringConstraints, ValidationError, model_validator

from conclave.gateway.policy.part import NAME, CategoryName, Part, Row
from conclave.gateway.policy.source import Loc, dotted

if TYPE_CHECKING:
    from conclave.gateway.policy.document import PolicyDocument

CONTROL: Final = "control"  # the arm of conversations that are served as the policy itself says
OWN: Final = frozenset({"split", "shadow"})  # keys of `routing` that an overlay cannot have: it is one
SHARED: Final = frozenset({"own_categories"})  # nor these: one classification serves all arms
WITH_TEXT: Final = frozenset({"quality"})  # nor these, of a shadow: it sees no text, and rows hold what was expected
TRIAL_BYTES: Final = 16

TrialName = Annotated[str, StringConstraints(pattern=NAME)]
P = TypeVar("P", bound=Part)


class OverlayError(ValueError):
    """An overlay that does not fit the policy; `loc` is the path of what is wrong below it, `words` say what is."""

    def __init__(self, words: str, loc: Loc) -> None:
        super().__init__(f"{dotted(loc)}: {words}")
        self.words = words
        self.loc = loc


class Overlay(Part):
    """What is different in how an expert is chosen; what is not said stays as the policy says."""

    categories: dict[CategoryName, Row] = Field(
        default_factory=dict, description="Rows in place of the policy's; categories that are not named keep theirs."
    )
    default: Row | None = Field(default=None, description="The default row; null: the policy's.")
    routing: dict[str, JsonValue] = Field(
        default_factory=dict, description="Keys of `routing` in place of the policy's; `split` and `shadow` are none."
    )


class Split(Overlay):
    """An A/B test: a share of the conversations is served so, and each conversation stays in its arm."""

    name: TrialName = Field(description="The arm's name in the record, the answers and the metrics; not `control`.")
    share: float = Field(ge=0, le=1, description="Of the conversations; the others are the arm `control`.")
    salt: str = Field(
        default="", max_length=64, description="Another salt deals the conversations anew; empty: the name."
    )

    @model_validator(mode="after")
    def _is_no_control(self) -> Self:
        if self.name == CONTROL:
            raise ValueError(f"{CONTROL!r} is the name of the other arm; give this one its own")
        return self


def laid_over(routing: P, overlay: Overlay) -> P:
    """The routing with the overlay's keys in place of its own. Raises OverlayError."""
    if wrong := sorted((OWN | SHARED) & overlay.routing.keys()):
        raise OverlayError("cannot be part of a split or shadow", ("routing", wrong[0]))
    if not isinstance(overlay, Split) and (wrong := sorted(WITH_TEXT & overlay.routing.keys())):
        words = "cannot be part of a shadow, which sees no text; try it in a split"
        raise OverlayError(words, ("routing", wrong[0]))
    kept = routing.model_dump(exclude=set(OWN))
    try:
        return type(routing).model_validate(kept | overlay.routing)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        words = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
        raise OverlayError(words, ("routing", *first["loc"])) from error


def overlaid(document: "PolicyDocument", overlay: Overlay) -> "PolicyDocument":
    """The document as if the overlay were the policy; it has no split and no shadow."""
    return document.model_copy(
        update={
            "categories": {**document.categories, **overlay.categories},
            "default": overlay.default if overlay.default is not None else document.default,
            "routing": laid_over(document.routing, overlay),
        }
    )


def trial_digest(document: "PolicyDocument", overlay: Overlay) -> str:
    """Of the policy's way to choose and of the overlay's: a change of either makes another trial."""
    plain = document.model_dump(mode="json", include={"experts", "categories", "default", "routing", "stages"})
    plain["routing"] = {key: value for key, value in plain["routing"].items() if key not in OWN}
    plain["experts"] = list(plain["experts"].items())
    raw = msgspec.json.encode([plain, overlay.model_dump(mode="json")], order="deterministic")
    return hashlib.blake2b(raw, digest_size=TRIAL_BYTES).hexdigest()
