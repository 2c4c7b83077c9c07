"""Anthropic's Messages API (`POST /v1/messages`) by litellm's own classes for it, over the gateway's connections.

A text delta, which is nearly every event, is recognised by its exact shape and rewritten in 3 us; litellm's parser
(60 us), which keeps the state of tools, thinking and usage, sees all others.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, Final, Literal

import msgspec

from conclave.gateway.call import Chunk
from conclave.gateway.errors import ExpertFailed
from conclave.gateway.experts.litellm import request
from conclave.gateway.experts.litellm.chunks import Writer, plain
from conclave.gateway.experts.litellm.dialect import Account, Question
from conclave.gateway.experts.litellm.errors import event_failure
from conclave.gateway.prompt import Prompt

PASSED: Final = frozenset({"top_k", "cache_control"})  # that go on under their own name
FETCHES: Final = ("https",)  # pictures that Anthropic gets for itself


class _Text(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["text_delta"]
    text: str


class _TextDelta(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["content_block_delta"]
    index: int
    delta: _Text


TEXT_DELTA: Final = msgspec.json.Decoder(_TextDelta)
EVENT: Final = msgspec.json.Decoder(dict[str, Any])
USUAL: Final = b'"text_delta"'


class AnthropicDialect:
    def __init__(self, account: Account) -> None:
        self._account = account
        root = account.base_url.removesuffix("/messages").removesuffix("/v1")
        self._url = f"{root}/v1/messages"
        self._known: frozenset[str] = frozenset()

    def question(self, litellm: ModuleType, prompt: Prompt, *, created: int) -> Question:
        account, config = self._account, litellm.AnthropicConfig()
        body = request.copied(prompt.body)
        messages = request.messages(body, fetches=FETCHES)
        self._known = self._known or request.known(config, account.model, PASSED)
        asked = request.parameters(body, self._known, defaults=account.defaults, drop=account.drop)
        options = request.mapped(config, account.model, asked, passed=PASSED, drop=account.drop)
        json_mode = bool(options.pop("json_mode", False))
        facts: dict[str, Any] = {}
        headers = config.validate_environment(
            headers={},
            model=account.model,
            messages=messages,
            optional_params=options,
            litellm_params=facts,
            api_key=account.api_key,
            api_base=self._url,
        )
        sent = config.transform_request(account.model, messages, options, facts, headers)
        sent.pop("stream", None)
        names = facts.get("_anthropic_tool_name_map") or {}
        parser = litellm.llms.anthropic.chat.handler.ModelResponseIterator(
            None, sync_stream=False, json_mode=json_mode, tool_name_reverse_map=names
        )

        def whole(data: bytes) -> Chunk:
            answer = EVENT.decode(data)
            if answer.get("type") == "error":
                raise event_failure(answer)
            made = config.transform_parsed_response(
                completion_response=answer,
                raw_response=SimpleNamespace(headers={}, status_code=200),
                model_response=litellm.ModelResponse(),
                json_mode=json_mode,
                tool_name_reverse_map=names,
            )
            return plain(made, answer_id=answer.get("id"))

        return Question(
            url=self._url,
            headers=headers,
            body={**sent, "stream": True} if prompt.stream else sent,
            reader=AnthropicReader(parser, account.model, created=created),
            whole=whole,
        )


class AnthropicReader:
    """The events of one stream. `parser` is litellm's ModelResponseIterator, of which only `chunk_parser` is used."""

    __slots__ = ("_created", "_model", "_parser", "_writer", "over")

    def __init__(self, parser: Any, model: str, *, created: int) -> None:
        self._parser = parser
        self._model = model
        self._created = created
        self._writer: Writer | None = None
        self.over = False

    def read(self, payload: bytes) -> Sequence[Chunk]:
        writer = self._writer
        if USUAL in payload and writer is not None and writer.begun:
            try:
                return (writer.text(TEXT_DELTA.decode(payload).delta.text),)
            except msgspec.DecodeError:
                pass  # another event that says these words, or a new field: the parser knows
        event = EVENT.decode(payload)
        match event.get("type"):
            case "ping":
                return ()
            case "error":
                raise event_failure(event)
            case "message_stop":
                self.over = True
                return ()
            case "message_start":
                return self._begun(event.get("message") or {}, event)
        if writer is None:
            raise ExpertFailed("the expert's stream does not begin with a message", kind="malformed")
        return writer.parsed(self._parser.chunk_parser(event), finishes=event.get("type") == "message_delta")

    def _begun(self, message: Mapping[str, Any], event: dict[str, Any]) -> Sequence[Chunk]:
        self._parser.chunk_parser(event)  # remembers the prompt's tokens
        said = message.get("model")
        self._writer = Writer(
            str(message.get("id") or self._parser.response_id),
            said if isinstance(said, str) else self._model,
            created=self._created,
        )
        return (self._writer.role(),)
