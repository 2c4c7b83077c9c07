"""What a model can do, what it costs and how much it reads, where the policy does not say so itself.

The facts are data (`catalog.json`, with the month they were true). A name is looked up as it is or as a dated snapshot
of a known one (`gpt-4o-2024-08-06`), never by a mere beginning: `gpt-5-pro` is not `gpt-5`, least of all in price.
"""

import re
from functools import cache
from importlib import resources
from typing import Final, Literal, TypeAlias

import msgspec

Capability: TypeAlias = Literal[
    "tools",
    "images",
    "audio",
    "files",
    "json_mode",
    "json_schema",
    "n",
    "logprobs",
    "prefill",  # continues an assistant message that ends the request (vLLM, SGLang)
    "completions",  # serves the older /completions, with suffix, echo and best_of
    "embeddings",
    "moderations",
]

# What nearly every OpenAI-compatible server takes. Images, audio and files must be declared.
DEFAULT_CAPABILITIES: Final[frozenset[str]] = frozenset({"tools", "json_mode", "json_schema", "n", "logprobs"})
SNAPSHOT: Final = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{4,8}|latest)$")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """One model. Prices are USD per million tokens; None where nobody said."""

    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    input: float | None = None
    output: float | None = None
    window_tokens: int | None = None


class Catalog(msgspec.Struct, frozen=True):
    """The shipped table; `as_of` is the month its prices were read."""

    as_of: str
    note: str
    models: dict[str, Facts]

    def facts(self, model: str) -> Facts:
        """Of the model or of the one it is a snapshot of; the documented default for an unknown one."""
        known = self.models.get(model) or self.models.get(SNAPSHOT.sub("", model))
        return known or Facts()


@cache
def shipped() -> Catalog:
    """The catalog that comes with this version; read once."""
    return msgspec.json.decode(resources.files(__package__).joinpath("catalog.json").read_bytes(), type=Catalog)
