"""The sole builder of what an expert is sent.

An expert gets the client's request as it was written, less what is Conclave's own: the `conclave` extension and the
model name, which each deployment puts in for itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from conclave.gateway.call import ChatRequest

OURS: Final = frozenset({"conclave", "model"})


@dataclass(frozen=True, slots=True)
class Prompt:
    """A chat.completions body without its model; `stream` says which kind of answer the upstream must give."""

    body: Mapping[str, Any]
    stream: bool


def compose(request: ChatRequest) -> Prompt:
    """The prompt of a request; unknown fields go on to the expert."""
    return Prompt({key: value for key, value in request.body.items() if key not in OURS}, stream=request.stream)
