"""Google's Gemini API (`:streamGenerateContent`) by litellm's own classes for it, over the gateway's connections.

An event that holds one piece of text and counts is recognised by its exact shape and rewritten in 4 us; litellm's
parser sees all others (tools, thoughts, citations, the end).
"""

from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, Final
from urllib.parse import quote

import msgspec

from conclave.gateway.call import Chunk
from conclave.gateway.experts.litellm import request
from conclave.gateway.experts.litellm.chunks import Writer, plain
from conclave.gateway.experts.litellm.dialect import Account, Question
from conclave.gateway.experts.litellm.errors import event_failure
from conclave.gateway.prompt import Prompt

PASSED: Final = frozenset({"top_k", "safety_settings"})  # that go on under their own name
PROVIDER: Final = "gemini"
VERSIONS: Final = ("v1", "v1alpha", "v1beta")


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    parts: tuple[_Part]
    role: str = "model"


class _Candidate(msgspec.Struct, forbid_unknown_fields=True):
    content: _Content
    index: int = 0


class _TextEvent(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    candidates: tuple[_Candidate]
    usage_metadata: msgspec.Raw = msgspec.Raw()  # the last event's count is the one that stays
    model_version: str = ""
    response_id: str = ""


TEXT_EVENT: Final = msgspec.json.Decoder(_TextEvent)
EVENT: Final = msgspec.json.Decoder(dict[str, Any])


class GeminiDialect:
    def __init__(self, account: Account) -> None:
        self._account = account
        self._known: frozenset[str] = frozenset()

    def question(self, litellm: ModuleType, prompt: Prompt, *, created: int) -> Question:
        account = self._account
        gemini = litellm.llms.vertex_ai.gemini
        config = litellm.GoogleAIStudioGeminiConfig()
        body = request.copied(prompt.body)
        messages = request.messages(body)
        self._known = self._known or request.known(config, account.model, PASSED)
        asked = request.parameters(body, self._known, defaults=account.defaults, drop=account.drop)
        options = request.mapped(config, account.model, asked, passed=PASSED, drop=account.drop)
        sent = gemini.transformation.transform_request_body(
            messages=messages,
            model=account.model,
            optional_params=dict(options),
            custom_llm_provider=PROVIDER,
            litellm_params={},
            cached_content=None,
        )
        shape = SimpleNamespace(optional_params=options)  # the parser asks it whether functions were offered
        parser = gemini.vertex_and_google_ai_studio_gemini.ModelResponseIterator(
            None, sync_stream=False, logging_obj=shape
        )

        def whole(data: bytes) -> Chunk:
            answer = EVENT.decode(data)
            if "error" in answer:
                raise event_failure(answer)
            made = config.transform_google_generate_content_to_openai_model_response(
                completion_response=answer,
                model_response=litellm.ModelResponse(),
                model=account.model,
                logging_obj=shape,
                raw_response=SimpleNamespace(headers={}),
            )
            return plain(made, answer_id=answer.get("responseId"))

        return Question(
            url=self._url(stream=prompt.stream, version=_version(litellm, account.model)),
            headers={"x-goog-api-key": account.api_key},  # never in the URL
            body=sent,
            reader=GeminiReader(parser, account.model, created=created),
            whole=whole,
        )

    def _url(self, *, stream: bool, version: str) -> str:
        root = self._account.base_url
        if root.rpartition("/")[2] not in VERSIONS:
            root = f"{root}/{version}"
        verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"{root}/models/{quote(self._account.model, safe='')}:{verb}"


def _version(litellm: ModuleType, model: str) -> str:
    return "v1alpha" if litellm.VertexGeminiConfig.is_gemini_3_or_newer(model) else "v1beta"


class GeminiReader:
    """The events of one stream, which ends without a word: `over` stays false. `parser` is litellm's."""

    __slots__ = ("_created", "_model", "_parser", "_writer", "over")

    def __init__(self, parser: Any, model: str, *, created: int) -> None:
        self._parser = parser
        self._model = model
        self._created = created
        self._writer: Writer | None = None
        self.over = False

    def read(self, payload: bytes) -> Sequence[Chunk]:
        try:
            usual = TEXT_EVENT.decode(payload)
        except msgspec.DecodeError:
            return self._parsed(EVENT.decode(payload))
        writer = self._writer or self._begin(usual.response_id, usual.model_version)
        text = writer.text(usual.candidates[0].content.parts[0].text)
        return (text,) if writer.begun else (writer.role(), text)

    def _parsed(self, event: dict[str, Any]) -> Sequence[Chunk]:
        if "error" in event:
            raise event_failure(event)
        parsed = self._parser.chunk_parser(event)
        writer = self._writer or self._begin(event.get("responseId") or parsed.id, event.get("modelVersion"))
        ends = any("finishReason" in one for one in event.get("candidates", ()))
        return writer.parsed(parsed, finishes=ends or bool((event.get("promptFeedback") or {}).get("blockReason")))

    def _begin(self, answer_id: str, model: str | None) -> Writer:
        self._writer = Writer(str(answer_id), str(model or self._model), created=self._created)
        return self._writer
