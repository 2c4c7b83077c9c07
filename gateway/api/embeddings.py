"""The dialect of `POST /v1/embeddings`: texts, or their token ids, become a ModelRequest. It never streams."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from conclave.gateway.api.body import Inputs, ModelName, check_inputs, checked, decode
from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import InvalidRequest


class EmbeddingsBody(Struct):
    """The fields of embeddings that the gateway reads or bounds; others go on to the expert."""

    model: ModelName
    input: Inputs
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    user: str | None = None
    stream: bool | None = None
    conclave: dict[str, Any] | None = None


def parse(body: bytes) -> ModelRequest:
    """A request from the body's bytes; raises InvalidRequest with the path of what is wrong."""
    raw = decode(body)
    known = checked(raw, EmbeddingsBody)
    check_inputs(known.input, param="input")
    if known.stream:
        raise InvalidRequest("embeddings come whole, never as a stream", param="stream")
    return ModelRequest(
        body=raw,
        model=known.model,
        stream=False,
        include_usage=False,
        needs=frozenset({"embeddings"}),
        operation="embeddings",
    )
