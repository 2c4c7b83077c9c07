"""What a model can do, what it costs and how much it reads, where the policy does not say so itself.

The facts are data (`catalog.json`, with the month they were true). A name is looked up as it is or as a dated snapshot
of a known one (`gpt-4o-2024-08-06`), never by a mere beginning: `gpt-5-pro` is not `gpt-5`, least of all in price.
"""

import re
from collections.abc import Collection
from functools import cache
from importlib import resources
from typing import Final, Literal, TypeAlias

import msgspec

from conclave.gateway.experts import price_table, providers

Capability: TypeAlias = Literal[
    "tools",
    "images",
    "audio",
    "files",
    "json_mode",
    "json_schema",
    "n",
    "logprobs",
    "moe",  # has inner experts, and takes `conclave.moe` (`conclave moe serve`)
    "prefill",  # continues an assistant message that ends the request (vLLM, SGLang)
    "completions",  # serves the older /completions, with suffix, echo and best_of
    "embeddings",
    "moderations",
    "chat",  # goes without saying, but for an expert of which only the operations above are said
]

# What nearly every OpenAI-compatible server takes. Images, audio and files must be declared.
DEFAULT_CAPABILITIES: Final[frozenset[str]] = frozenset({"tools", "json_mode", "json_schema", "n", "logprobs"})
UNKNOWN: Final = frozenset({"tools"})  # of a model behind litellm that neither table knows
OPERATIONS: Final = frozenset({"completions", "embeddings", "moderations"})
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
        return self.known(model) or Facts()

    def known(self, model: str) -> Facts | None:
        """As `facts`; None for an unknown one."""
        return self.models.get(model) or self.models.get(SNAPSHOT.sub("", model))


def facts_of(model: str, base_url: str | None = None, *, kind: str = "openai") -> Facts:
    """What is known of an expert's model: prices and window from litellm's table where that is installed.

    An address of nobody's that we know (one's own server) has no price but the shipped catalog's: the same open model
    costs different money elsewhere.
    """
    if kind == "litellm":
        provider = providers.BY_NAME.get(model.partition("/")[0])
        name = model
    else:
        provider = providers.at(base_url)
        name = provider.table + model if provider is not None else model
    known = shipped().known(name)
    if provider is None and kind != "litellm":
        return known or Facts()
    listed = price_table.entry(name) or price_table.entry(SNAPSHOT.sub("", name))
    if listed is None:
        return known or Facts(capabilities=UNKNOWN if kind == "litellm" else DEFAULT_CAPABILITIES)
    beyond = provider.beyond if provider is not None else frozenset[str]()
    return Facts(
        capabilities=known.capabilities if known is not None else _with(listed.capabilities, beyond),
        input=listed.input,
        output=listed.output,
        window_tokens=listed.window_tokens,
    )


def _with(listed: frozenset[str], beyond: frozenset[str]) -> frozenset[str]:
    return listed if listed & OPERATIONS else listed | beyond


def whole(capabilities: Collection[str]) -> frozenset[str]:
    """Capabilities with what goes without saying: `chat`, but for an expert that is there for something else.

    That is one of which OPERATIONS are said and nothing that only a chat has: `[embeddings]`, `[moderations, images]`.
    """
    said = frozenset(capabilities)
    return said if said & OPERATIONS and said <= OPERATIONS | {"images"} else said | {"chat"}


@cache
def shipped() -> Catalog:
    """The catalog that comes with this version; read once."""
    return msgspec.json.decode(resources.files(__package__).joinpath("catalog.json").read_bytes(), type=Catalog)
