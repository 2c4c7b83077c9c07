"""Finds experts in the environment, for a policy that names none.

    OPENAI_API_KEY and/or OPENAI_BASE_URL, OPENAI_MODEL   -> openai
    OLLAMA_HOST, OLLAMA_MODEL                             -> ollama
    VLLM_BASE_URL, VLLM_MODEL, VLLM_API_KEY               -> vllm

`discover` is a function of the variables and of `first_model`, which is asked for what a server offers where no
variable names the model. Never touches a policy that names its experts, and never reads a key, only whether it is set.
"""

import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Final, TypeAlias

import msgspec
from pydantic import ValidationError

from conclave.gateway.policy.document import ExpertSettings, http_url
from conclave.gateway.policy.source import Problem

OPENAI_URL: Final = "https://api.openai.com/v1"
OPENAI_MODEL: Final = "gpt-4.1-mini"  # cheap, a long window, and takes every parameter (reasoning models refuse some)
OLLAMA_PORT: Final = 11434
FREE: Final = {"input": 0.0, "output": 0.0}  # one's own machine bills no tokens
ASK_TIMEOUT_S: Final = 2.0
LISTING_BYTES: Final = 1_048_576

FirstModel: TypeAlias = Callable[[str, str | None], str | None]


@dataclass(frozen=True, slots=True)
class Found:
    """The experts by name, and what was set but could not be used."""

    experts: Mapping[str, ExpertSettings]
    notes: tuple[Problem, ...]


def discover(environ: Mapping[str, str], *, first_model: FirstModel) -> Found:
    """What the variables offer. `first_model(base_url, key)` is asked only where no variable names a model."""
    said = {name: value.strip() for name, value in environ.items() if value.strip()}
    experts: dict[str, ExpertSettings] = {}
    notes: list[Problem] = []
    for name, variable, expert in _offers(said):
        prefix = variable.split("_")[0]
        url, key = str(expert["base_url"]), said.get(str(expert.get("api_key_env")))
        try:
            expert["model"] = said.get(f"{prefix}_MODEL") or expert.get("model") or _asked(url, key, first_model)
            experts[name] = ExpertSettings.model_validate(expert)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            notes.append(
                Problem(variable, "", f"no expert was made of it: {reason} (set {prefix}_MODEL to name a model)")
            )
    return Found(experts, tuple(notes))


def _offers(said: Mapping[str, str]) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, the variable that spoke, and the expert as a policy file would write it."""
    offers: list[tuple[str, str, dict[str, Any]]] = []
    if "OPENAI_API_KEY" in said or "OPENAI_BASE_URL" in said:
        url = said.get("OPENAI_BASE_URL", OPENAI_URL)
        model = OPENAI_MODEL if url.rstrip("/") == OPENAI_URL else None
        offers.append(("openai", "OPENAI_API_KEY", {"base_url": url, "model": model} | _key("OPENAI_API_KEY", said)))
    if "OLLAMA_HOST" in said:
        offers.append(("ollama", "OLLAMA_HOST", {"base_url": _ollama_url(said["OLLAMA_HOST"]), "price": FREE}))
    if "VLLM_BASE_URL" in said:
        expert = {"base_url": said["VLLM_BASE_URL"], "price": FREE} | _key("VLLM_API_KEY", said)
        offers.append(("vllm", "VLLM_BASE_URL", expert))
    return offers


def _key(variable: str, said: Mapping[str, str]) -> dict[str, Any]:
    return {"api_key_env": variable} if variable in said else {}


def _ollama_url(host: str) -> str:
    """The API's URL for all that Ollama itself takes: `host`, `host:port`, `http://host:port`, `0.0.0.0`."""
    scheme, _, rest = host.rpartition("://")
    address = rest.split("/")[0]
    name, _, port = address.rpartition(":") if not address.endswith("]") else (address, "", "")
    if not port.isdigit():
        name, port = address, "443" if scheme == "https" else str(OLLAMA_PORT)
    if name in {"0.0.0.0", "[::]", ""}:  # noqa: S104  where Ollama listens is no address to call
        name = "127.0.0.1"
    return f"{scheme or 'http'}://{name}:{port}/v1"


def _asked(url: str, key: str | None, first_model: FirstModel) -> str | None:
    try:
        usable = http_url(url)
    except ValueError:
        return None  # the expert's own check says it
    return first_model(usable, key)


def first_model(base_url: str, key: str | None) -> str | None:
    """The first model that `GET /models` lists; None if nobody answers so within two seconds."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        request = urllib.request.Request(f"{base_url}/models", headers=headers)  # noqa: S310  the scheme is checked
        with urllib.request.urlopen(request, timeout=ASK_TIMEOUT_S) as response:  # noqa: S310  as above
            listing = msgspec.json.decode(response.read(LISTING_BYTES))
        model = listing["data"][0]["id"]
    except (OSError, HTTPException, ValueError, LookupError, TypeError, RecursionError):
        return None
    return model if isinstance(model, str) else None
