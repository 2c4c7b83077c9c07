"""The cloud providers that the gateway knows by name: where they are, what to ask them for, what their servers can do.

Most speak the OpenAI API themselves and need nothing but their address; two (and whatever a policy names) are spoken to
through litellm. Data only; nothing here is asked or imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider. `model` is what is asked for where nobody says; cheap, current, and kept under that name.

    `table` stands before its models' names in litellm's table of prices. `beyond` are capabilities of its server that
    the table does not know of. `prefix` begins the names of its variables (`<prefix>_API_KEY`, `_MODEL`,
    `_BASE_URL`).
    """

    name: str
    prefix: str
    model: str
    table: str
    url: str | None = None  # None: through litellm
    beyond: frozenset[str] = frozenset()
    stream_usage: bool = True


JSON: Final = frozenset({"json_mode"})
PROVIDERS: Final = (
    Provider("anthropic", "ANTHROPIC", "claude-haiku-4-5", "anthropic/"),
    Provider("gemini", "GEMINI", "gemini-flash-latest", "gemini/", beyond=JSON | {"n", "logprobs"}),
    Provider(
        "mistral", "MISTRAL", "mistral-small-latest", "mistral/", "https://api.mistral.ai/v1",
        beyond=JSON | {"n"}, stream_usage=False,  # it counts without being asked
    ),
    Provider("groq", "GROQ", "openai/gpt-oss-120b", "groq/", "https://api.groq.com/openai/v1", beyond=JSON),
    Provider(
        "deepseek", "DEEPSEEK", "deepseek-flash", "deepseek/", "https://api.deepseek.com/v1",
        beyond=JSON | {"logprobs"},
    ),
    Provider("xai", "XAI", "grok-4.3", "xai/", "https://api.x.ai/v1", beyond=JSON | {"n", "logprobs"}),
    Provider(
        "cohere", "COHERE", "command-a-03-2025", "cohere_chat/", "https://api.cohere.ai/compatibility/v1",
        beyond=frozenset({"json_mode", "json_schema"}), stream_usage=False,  # it refuses `stream_options`
    ),
    Provider(
        "openrouter", "OPENROUTER", "openrouter/auto", "openrouter/", "https://openrouter.ai/api/v1",
        beyond=JSON,
    ),
    Provider(
        "together", "TOGETHER", "openai/gpt-oss-120b", "together_ai/", "https://api.together.xyz/v1",
        beyond=JSON | {"n"},
    ),
    Provider(
        "fireworks", "FIREWORKS", "accounts/fireworks/models/deepseek-v4p1-flash", "fireworks_ai/",
        "https://api.fireworks.ai/inference/v1", beyond=JSON | {"n"},
    ),
)  # fmt: skip
OPENAI: Final = Provider("openai", "OPENAI", "gpt-4.1-mini", "", "https://api.openai.com/v1", beyond=JSON)
BY_HOST: Final[Mapping[str, Provider]] = {
    urlsplit(one.url).netloc: one for one in (OPENAI, *PROVIDERS) if one.url is not None
}
BY_NAME: Final[Mapping[str, Provider]] = {one.name: one for one in PROVIDERS}


def at(base_url: str | None) -> Provider | None:
    """Whose server an address is; None for one that we do not know, one's own above all."""
    return BY_HOST.get(urlsplit(base_url).netloc) if base_url else None
