"""What of a client's request goes on to a provider behind litellm, and what is said if some of it cannot.

litellm takes its own settings (`api_base`, `api_key`, `mock_response`, ...) as keywords beside the OpenAI parameters,
so only names listed here ever reach it: a client must not choose where the operator's key is sent. Nothing that would
change the answer is dropped; what would not (`n: 1`, a `user`) is, where a provider does not know it. No URL of a
client's is fetched.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import msgspec

from conclave.gateway.errors import ExpertFailed

PARAMETERS: Final = frozenset(
    {
        *("temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "n", "seed", "logit_bias"),
        *("presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "response_format", "reasoning_effort"),
        *("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "modalities", "audio"),
        *("prediction", "verbosity", "web_search_options", "user", "service_tier"),
        *("thinking", "top_k", "safety_settings"),  # not OpenAI's, but what clients of these providers send
    }
)
NATIVE: Final = frozenset({"thinking", "top_k", "safety_settings"})
EMBEDDING: Final = frozenset({"dimensions", "encoding_format", "user"})
HINTS: Final = frozenset(  # they change no answer
    {
        *("user", "metadata", "store", "seed", "prompt_cache_key", "prompt_cache_retention"),
        *("safety_identifier", "service_tier", "stream", "stream_options", "parallel_tool_calls"),
    }
)
IDLE: Final[Mapping[str, object]] = {  # what OpenAI does by default anyway
    "n": 1,
    "logprobs": False,
    "top_logprobs": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logit_bias": {},
    "modalities": ["text"],
    "verbosity": "medium",
    "tools": [],
    "functions": [],
}
MEDIA: Final = ("image_url", "file", "video_url", "input_audio")
OURS: Final = frozenset({"messages", "input", "model"})


def copied(body: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy: litellm changes what it is given."""
    twin: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(body))
    return twin


def known(config: Any, model: str, passed: Collection[str]) -> frozenset[str]:
    """The parameters that a provider's configuration class takes for a model; looked up once, it costs 0.3 ms."""
    return frozenset({*(PARAMETERS & set(config.get_supported_openai_params(model=model))), *passed})


def mapped(config: Any, model: str, asked: Mapping[str, Any], *, passed: Collection[str], drop: bool) -> dict[str, Any]:
    """The parameters in a provider's own names; those `passed` keep theirs."""
    own = {name: value for name, value in asked.items() if name in passed}
    openai = {name: value for name, value in asked.items() if name not in passed}
    options: dict[str, Any] = config.map_openai_params(
        non_default_params=openai, optional_params={}, model=model, drop_params=drop
    )
    return {**options, **own}


def parameters(
    body: Mapping[str, Any], taken: Collection[str], *, defaults: Mapping[str, Any], drop: bool = False
) -> dict[str, Any]:
    """The request's parameters that a provider has `taken` on, over the operator's `defaults`.

    Raises ExpertFailed for one that it does not know and that matters, unless the operator said `drop`.
    """
    asked = {name: value for name, value in body.items() if name not in OURS and value is not None}
    found = dict(defaults)
    for name, value in asked.items():
        if name in taken:
            found[name] = value
        elif not (drop or name in HINTS or (name in IDLE and IDLE[name] == value)):
            raise ExpertFailed(
                f"this expert's provider does not take the parameter {name[:64]!r}",
                kind="rejected",
                param=name[:64],
                code="unsupported_parameter",
            )
    return found


def messages(body: Mapping[str, Any], *, fetches: Collection[str] = ()) -> list[dict[str, Any]]:
    """The messages as litellm wants them. `fetches`: the schemes of URLs that the provider itself fetches.

    Raises ExpertFailed for media that somebody else would have to fetch.
    """
    said: list[dict[str, Any]] = body["messages"]
    for number, message in enumerate(said):
        if message.get("role") == "developer":
            message["role"] = "system"
        for place, url in _urls(message.get("content")):
            scheme = url.partition(":")[0].lower()
            if scheme != "data" and scheme not in fetches:
                raise ExpertFailed(
                    "this expert takes media only inside the request, as data: URLs",
                    kind="rejected",
                    param=f"messages[{number}].content{place}",
                    code="unsupported_url",
                )
    return said


def _urls(content: Any) -> Iterator[tuple[str, str]]:
    """Every address in a message's parts, with its place; what is no address of a known shape counts as one."""
    for number, part in enumerate(content if isinstance(content, list) else ()):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in MEDIA:
            continue
        inner = part.get(kind)
        fields = inner if isinstance(inner, dict) else {"url": inner}
        for name in ("url", "file_id", "file_data"):
            if fields.get(name) is not None:
                yield f"[{number}].{kind}", str(fields[name])
