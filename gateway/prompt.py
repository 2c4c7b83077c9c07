"""The sole builder of what an expert is sent.

An expert gets the client's request as it was written, less what is Conclave's own: the `conclave` extension and the
model name, which each deployment puts in for itself. An expert that continues another's answer gets that answer, too,
and one on trial the wish to hear how sure it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from conclave.gateway.call import ModelRequest, Operation
from conclave.gateway.trace import NO_HEADERS

OURS: Final = frozenset({"conclave", "model"})
NOTHING: Final[Mapping[str, Any]] = {}
COMPLETIONS_ONLY: Final = frozenset({"prompt", "suffix", "echo", "best_of", "logprobs"})
CHARS_PER_TOKEN: Final = 4  # of English text: what is left of the client's own limit, roughly
GO_ON: Final = (
    "The connection broke while you were answering, and your last message is all that arrived. Continue it from its"
    " very last character, in the same language and format. Begin with a space or line break if one belongs there."
    " Write only what comes next: do not repeat, introduce or explain anything."
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A body of the OpenAI API without its model; `stream` says which kind of answer the upstream must give.

    `headers` go along to the upstream: where the call stands in a distributed trace. `prefilled` says that the body
    ends with the beginning of the answer, as the expert's own words. `added` are the fields that the client did not
    ask for.
    """

    body: Mapping[str, Any]
    stream: bool
    operation: Operation = "chat"
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS)
    prefilled: bool = False
    added: frozenset[str] = frozenset()


def compose(  # noqa: PLR0913  each a separate fact of the step, all keyword-only but the request
    request: ModelRequest,
    *,
    so_far: str = "",
    prefills: bool = False,
    as_chat: bool = False,
    beside: Mapping[str, Any] = NOTHING,
    headers: Mapping[str, str] = NO_HEADERS,
) -> Prompt:
    """The prompt of a request; unknown fields go on to the expert.

    `so_far` is the beginning of an answer that the expert has to continue: as its own last words if it `prefills`
    (vLLM, SGLang), else because it is asked to. `as_chat` asks for a text completion as a chat with one message.
    `beside` are fields that the gateway puts in for itself.
    """
    body = {key: value for key, value in request.body.items() if key not in OURS}
    if as_chat:
        return Prompt(_one_message(body), stream=request.stream, headers=headers)
    if so_far:
        body = _continuing(body, so_far, prefills=prefills)
    return Prompt(
        {**body, **beside},
        stream=request.stream,
        operation=request.operation,
        headers=headers,
        prefilled=bool(so_far) and prefills,
        added=frozenset(beside),
    )


def _one_message(body: dict[str, Any]) -> dict[str, Any]:
    """The body of a text completion as a chat's. What no chat knows is dropped: `api.completions` saw that it asks for
    nothing."""
    said = body["prompt"]
    text = said if isinstance(said, str) else said[0]
    rest = {key: value for key, value in body.items() if key not in COMPLETIONS_ONLY}
    return {**rest, "messages": [{"role": "user", "content": text}]}


def _continuing(body: dict[str, Any], so_far: str, *, prefills: bool) -> dict[str, Any]:
    said = {"role": "assistant", "content": so_far}
    if prefills:
        more = [said]
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    else:
        more = [said, {"role": "user", "content": GO_ON}]
    for limit in ("max_tokens", "max_completion_tokens"):
        if isinstance(body.get(limit), int):
            body[limit] = max(1, body[limit] - len(so_far) // CHARS_PER_TOKEN)
    return {**body, "messages": [*body["messages"], *more]}
