"""The dialect of `POST /v1/moderations`: what is to be judged becomes a ModelRequest. Nothing is judged here."""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from conclave.gateway.api.body import MOST_INPUTS, ModelName, checked, decode
from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import InvalidRequest
from conclave.gateway.policy.rules import PART_NEEDS

AUTO: Final = "auto"  # what a client gets that names no model: OpenAI's SDKs need none here


class ModeratedPart(Struct):
    """A text or an image."""

    type: str
    text: str | None = None


class ModerationsBody(Struct):
    """The fields of moderations that the gateway reads; others go on to the expert."""

    input: Annotated[
        str | Annotated[list[str | ModeratedPart], Meta(min_length=1, max_length=MOST_INPUTS)],
        Meta(description="A text, several, or the parts of one message."),
    ]
    model: ModelName | None = None
    stream: bool | None = None
    conclave: dict[str, Any] | None = None


def parse(body: bytes) -> ModelRequest:
    """A request from the body's bytes; raises InvalidRequest with the path of what is wrong."""
    raw = decode(body)
    known = checked(raw, ModerationsBody)
    parts = [one for one in known.input if isinstance(one, ModeratedPart)] if isinstance(known.input, list) else []
    if parts and len(parts) < len(known.input):
        raise InvalidRequest("input must hold texts, or parts, and not a mixture of them", param="input")
    if known.stream:
        raise InvalidRequest("moderations come whole, never as a stream", param="stream")
    return ModelRequest(
        body=raw,
        model=known.model or AUTO,
        stream=False,
        include_usage=False,
        needs=frozenset({"moderations", *(PART_NEEDS[part.type] for part in parts if part.type in PART_NEEDS)}),
        operation="moderations",
    )
