"""The pool as the policy describes it: where keys are read, and what is said of one that cannot be used."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from conclave.gateway.experts.configured import configured
from conclave.gateway.experts.openai_http import HttpSessions
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import ExpertSettings, PolicyDocument

from .asking import prompt
from .provider_wire import ANTHROPIC_PLAIN, needs_litellm
from .raw_server import STREAM, RawServer


def pool(environ: Mapping[str, str], sessions: HttpSessions | None = None, **expert: Any) -> Pool:
    settings = ExpertSettings(**{"model": "m", "base_url": "http://127.0.0.1:1/v1", **expert})
    return configured(PolicyDocument(experts={"fast": settings}), environ, sessions or HttpSessions())


@pytest.mark.parametrize("missing", ["gone", "."], ids=["missing", "a folder"])
def test_a_key_file_that_cannot_be_read_is_named_with_its_expert(tmp_path: Path, missing: str) -> None:
    file = tmp_path / missing
    with pytest.raises(OSError, match="expert fast: api_key_file") as refused:
        pool({}, api_key_file=file)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["sk-\u201cquoted\u201d", "two\nlines"])
def test_a_key_that_cannot_be_sent_is_said_with_its_place_but_not_shown(tmp_path: Path, key: str) -> None:
    (tmp_path / "key").write_text(key, encoding="utf-8")
    for place in ({"api_key_env": "K"}, {"api_key_file": tmp_path / "key"}):
        with pytest.raises(ValueError, match=r"expert fast: api_key_.*printable ASCII") as refused:
            pool({"K": key}, **place)
        assert key not in str(refused.value)


@pytest.mark.parametrize("asked", [True, False])
async def test_an_expert_is_asked_for_token_counts_unless_its_server_refuses_them(asked: bool) -> None:
    sessions = HttpSessions()
    async with RawServer(STREAM) as server:
        made = pool({}, sessions, base_url=server.url, stream_usage=asked)
        with made.open("fast", prompt(True), deadline_s=float("inf")) as upstream:
            async for _ in upstream:
                pass
        await made.aclose()
        await sessions.aclose()
    assert ("stream_options" in server.requests[0].body) is asked


@needs_litellm
async def test_an_expert_behind_litellm_is_asked_with_its_own_key_and_parameters() -> None:
    sessions = HttpSessions()
    async with RawServer(ANTHROPIC_PLAIN) as server:
        settings = ExpertSettings(
            kind="litellm",
            model="anthropic/claude-haiku-4-5",
            api_key_env="K",
            params={"max_tokens": 9},
            deployments=({"base_url": server.url},),
        )
        made = configured(PolicyDocument(experts={"fast": settings}), {"K": "sk-one"}, sessions)
        (state,) = made.states()
        with made.open("fast", prompt(False), deadline_s=float("inf")) as upstream:
            (chunk,) = [chunk async for chunk in upstream]
        await made.aclose()
        await sessions.aclose()
    assert state.label == f"0:{server.url.split('//')[1].removesuffix('/v1')}"
    assert chunk.event["object"] == "chat.completion"
    assert server.requests[0].header("x-api-key") == "sk-one"
    assert server.requests[0].body["max_tokens"] == 9


@needs_litellm
def test_without_an_address_the_label_is_the_provider() -> None:
    settings = ExpertSettings(kind="litellm", model="bedrock/amazon.nova-lite-v1:0")
    (state,) = configured(PolicyDocument(experts={"b": settings}), {}, HttpSessions()).states()
    assert state.label == "0:bedrock"
