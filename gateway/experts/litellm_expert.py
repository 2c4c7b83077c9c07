"""An expert behind any of litellm's providers: `anthropic/claude-...`, `gemini/...`, `bedrock/...`, and so on.

Decides which way a call goes: Anthropic's and Gemini's chats over the gateway's own connections (`litellm/direct.py`),
all else through litellm's client (`litellm/general.py`). A server that speaks the OpenAI API needs neither: that is
`OpenAIExpert`. Imports no litellm; `Runtime` does, in a thread.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from conclave.gateway.experts.api import Upstream
from conclave.gateway.experts.endpoint import Endpoint, Lingering, TimeLimits
from conclave.gateway.experts.litellm.dialect import Account, Dialect
from conclave.gateway.experts.litellm.request import NATIVE, PARAMETERS
from conclave.gateway.experts.litellm.runtime import Runtime
from conclave.gateway.experts.openai_http import HttpSessions
from conclave.gateway.prompt import Prompt

DROP: Final = "drop_params"  # the operator's leave to send less than was asked
NO_KEY: Final = "none"  # said to the provider, whose 401 then says it all; litellm would look for one by itself
ROOTS: Final[Mapping[str, str]] = {  # of the providers whose format we speak ourselves
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
}
HEADERS: Final[Mapping[str, str]] = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "accept-encoding": "identity",
    "user-agent": "conclave-gateway",
}


class LiteLLMExpert:
    """One model of one provider. `params` are litellm's keywords for it (`aws_region_name`, ...), and defaults."""

    def __init__(  # noqa: PLR0913  settings of one deployment, all keyword-only but the first two
        self,
        name: str,
        model: str,
        *,
        runtime: Runtime,
        sessions: HttpSessions,
        api_key: str | None = None,
        base_url: str | None = None,
        params: Mapping[str, Any] | None = None,
        limits: TimeLimits | None = None,
        now_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        from conclave.gateway.experts.litellm import direct, general  # noqa: PLC0415  aiohttp: 0.2 s

        self.name = name
        limits = limits or TimeLimits()
        provider, _, model_there = model.partition("/")
        self._endpoint = Endpoint(
            expert=name,
            host=urlsplit(base_url).netloc if base_url else provider,
            url="",
            model=model_there,
            api_key=api_key,
            headers=HEADERS,
            session=sessions.to(base_url or ROOTS[provider]) if base_url or provider in ROOTS else sessions.get,
            limits=limits,
            stream_usage=True,
            lingering=Lingering(limits.linger_s),
            now_s=now_s,
            wall_s=wall_s,
        )
        self._runtime = runtime
        given = dict(params or {})
        drop = bool(given.pop(DROP, False))
        if provider in ROOTS:
            api_key = api_key or NO_KEY
        self._dialect = _dialect(
            provider, Account(model_there, api_key or NO_KEY, base_url or ROOTS.get(provider, ""), given, drop)
        )
        secrets = (api_key,) if api_key else ()
        self._place = general.Place(model, api_key, base_url, given, drop, sessions.to, secrets)
        self._direct, self._general = direct, general.GeneralUpstream

    def open(self, prompt: Prompt, *, deadline_s: float) -> Upstream:
        """Nothing is imported or sent before the first `__anext__`."""
        if self._dialect is None or prompt.operation != "chat":
            return self._general(self._endpoint, self._place, self._runtime, prompt, deadline_s)
        asking = self._direct.Asking(self._endpoint, self._dialect, self._runtime, prompt)
        kind = self._direct.DirectStream if prompt.stream else self._direct.DirectPlain
        return kind(self._endpoint, prompt, deadline_s, asking)

    async def aclose(self) -> None:
        self._endpoint.lingering.close()


def _dialect(provider: str, account: Account) -> Dialect | None:
    """The direct way, where there is one, and nothing is asked for that only litellm's client does."""
    from conclave.gateway.experts.litellm.anthropic import AnthropicDialect  # noqa: PLC0415  as above
    from conclave.gateway.experts.litellm.gemini import GeminiDialect  # noqa: PLC0415

    known: Mapping[str, Callable[[Account], Dialect]] = {"anthropic": AnthropicDialect, "gemini": GeminiDialect}
    if provider not in known or not account.defaults.keys() <= PARAMETERS | NATIVE:
        return None
    return known[provider](account)
