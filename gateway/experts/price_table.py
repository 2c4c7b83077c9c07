"""litellm's table of models, read from its file where litellm is installed: prices, windows and what a model can do.

Reads a file once (3 MB, 30 ms) and imports nothing: importing litellm takes seconds. Knows nothing of the policy.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

FILE: Final = "model_prices_and_context_window_backup.json"
PROVIDERS_FILE: Final = "provider_endpoints_support_backup.json"
PER_MILLION: Final = 1e6
DIGITS: Final = 6  # of a price: the table multiplies with rounding errors

Read = TypeVar("Read")
Number: TypeAlias = float | str | None  # its sample entry explains each number in words


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One model, as far as we read it."""

    litellm_provider: str = ""
    mode: str = ""
    input_cost_per_token: Number = None
    output_cost_per_token: Number = None
    max_input_tokens: Number = None
    supports_function_calling: bool | str | None = None
    supports_vision: bool | str | None = None
    supports_pdf_input: bool | str | None = None
    supports_audio_input: bool | str | None = None
    supports_response_schema: bool | str | None = None

    @property
    def input(self) -> float | None:
        return _price(self.input_cost_per_token)

    @property
    def output(self) -> float | None:
        return _price(self.output_cost_per_token)

    @property
    def window_tokens(self) -> int | None:
        most = self.max_input_tokens
        return int(most) if isinstance(most, int | float) and most > 0 else None

    @property
    def capabilities(self) -> frozenset[str]:
        """What the table says of the model; of its server (`n`, `json_mode`) it says nothing."""
        if self.mode in MODES:
            return frozenset({MODES[self.mode]})
        said = {
            "tools": self.supports_function_calling,
            "images": self.supports_vision,
            "files": self.supports_pdf_input,
            "audio": self.supports_audio_input,
            "json_schema": self.supports_response_schema,
        }
        return frozenset(name for name, can in said.items() if can is True)


class Listed(msgspec.Struct, frozen=True):
    """litellm's list of providers, by name."""

    providers: dict[str, Any]


MODES: Final = {"embedding": "embeddings", "completion": "completions", "moderation": "moderations"}


def entry(name: str, provider: str | None = None) -> Entry | None:
    """Of `anthropic/claude-haiku-4-5`, under that name or, if it is that provider's, under its own alone."""
    table = _table()
    if name in table:
        return table[name]
    vendor, _, model = name.partition("/")
    found = table.get(model)
    owner = (provider or vendor).rstrip("/")
    return found if found is not None and found.litellm_provider.startswith(owner) else None


@cache
def providers() -> frozenset[str]:
    """The names that may stand before the slash, as far as litellm's files know; none if it is not installed.

    They know nearly all: some that have no prices and no public documentation are in its code alone.
    """
    listed = _read(PROVIDERS_FILE, Listed)
    if listed is None:
        return frozenset()
    prefixes = {name.partition("/")[0] for name in _table() if "/" in name}
    return frozenset(listed.providers) | prefixes | {one.litellm_provider for one in _table().values()}


@cache
def _table() -> dict[str, Entry]:
    return _read(FILE, dict[str, Entry]) or {}


def _read(file: str, kind: type[Read]) -> Read | None:
    spec = find_spec("litellm")
    if spec is None or spec.origin is None:
        return None
    try:
        return msgspec.json.decode((Path(spec.origin).parent / file).read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError):  # another version of litellm: what is shipped here stands alone
        return None


def _price(per_token: Number) -> float | None:
    return round(per_token * PER_MILLION, DIGITS) if isinstance(per_token, int | float) else None
