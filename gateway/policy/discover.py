"""Finds experts in the environment, for a policy that names none.

    OPENAI_API_KEY and/or OPENAI_BASE_URL, OPENAI_MODEL   -> openai; at OpenAI itself also OPENAI_BESIDE
    ANTHROPIC_API_KEY, GEMINI_API_KEY, MISTRAL_API_KEY ... -> one each, as `experts/providers.py` lists them
    AZURE_API_KEY, AZURE_API_BASE, AZURE_MODEL             -> azure
    AWS_BEARER_TOKEN_BEDROCK or BEDROCK_MODEL, AWS_REGION  -> bedrock
    VERTEXAI_PROJECT, VERTEXAI_LOCATION, VERTEXAI_MODEL    -> vertexai
    OLLAMA_HOST, OLLAMA_MODEL                             -> ollama
    VLLM_BASE_URL, VLLM_MODEL, VLLM_API_KEY               -> vllm

`discover` is a function of the variables and of `first_model`, which is asked for what a server offers where no
variable names the model. An expert that litellm has to speak for is found only where litellm is installed; what lacks
it, and what lacks a second variable, is a note. Never touches a policy that names its experts, and never reads a key,
only whether it is set.
"""

import base64
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib.util import find_spec
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

import msgspec
from pydantic import ValidationError

from conclave.gateway.experts.egress import Egress
from conclave.gateway.experts.litellm.runtime import INSTALL
from conclave.gateway.experts.providers import PROVIDERS, Provider
from conclave.gateway.policy.document import ExpertSettings, http_url
from conclave.gateway.policy.source import Problem

OPENAI_URL: Final = "https://api.openai.com/v1"
OPENAI_MODEL: Final = "gpt-4.1-mini"  # cheap, a long window, and takes every parameter (reasoning models refuse some)
OPENAI_BESIDE: Final = (  # what applications ask OpenAI for beside chats, by the names that they use: one expert each
    "text-embedding-3-small",
    "text-embedding-3-large",
    "text-embedding-ada-002",
    "omni-moderation-latest",
    "gpt-3.5-turbo-instruct",
)
AWS_REGIONS: Final = ("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION")
AWS_PROFILES: Final = {"us": "us.", "eu": "eu.", "ap": "apac."}  # Bedrock serves most models by a region's profile
BEDROCK_TOKEN: Final = "AWS_BEARER_TOKEN_BEDROCK"  # noqa: S105  a name. Other AWS keys are set for other reasons, too
NOVA: Final = "amazon.nova-lite-v1:0"
VERTEX_MODEL: Final = "gemini-2.5-flash"
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


def discover(
    environ: Mapping[str, str], *, first_model: FirstModel, installed: Callable[[str], bool] | None = None
) -> Found:
    """What the variables offer. `first_model(base_url, key)` is asked only where no variable names a model.

    `installed` says whether a module can be imported (without doing so).
    """
    installed = installed or _installed
    said = {name: value.strip() for name, value in environ.items() if value.strip()}
    experts: dict[str, ExpertSettings] = {}
    notes: list[Problem] = []
    lacking: list[str] = []
    for name, variable, expert in _offers(said):
        prefix = variable.split("_")[0]
        url, key = expert.get("base_url"), said.get(str(expert.get("api_key_env")))
        if expert.get("kind") == "litellm" and not installed("litellm"):
            lacking.append(variable)
            continue
        if name == "vertexai" and not installed("google.auth"):
            continue
        try:
            model = said.get(f"{prefix}_MODEL") or expert.get("model") or _asked(str(url), key, first_model)
            before = expert.pop("before_model", "")
            expert["model"] = before + model.removeprefix(before) if model else None
            experts[name] = ExpertSettings.model_validate(expert)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            if reason == "model is missing":
                reason = (
                    f"no server there named a model within {ASK_TIMEOUT_S:g} s: start it first, or set {prefix}_MODEL"
                )
            notes.append(Problem(variable, "", f"no expert was made of it: {reason}"))
    notes += _lacks(said, lacking, installed)
    if (openai := experts.get("openai")) is not None and openai.base_url == OPENAI_URL:
        experts |= {model: openai.model_copy(update={"model": model}) for model in OPENAI_BESIDE}
    return Found(experts, tuple(notes))


def _offers(said: Mapping[str, str]) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, the variable that spoke, and the expert as a policy file would write it."""
    offers: list[tuple[str, str, dict[str, Any]]] = []
    if "OPENAI_API_KEY" in said or "OPENAI_BASE_URL" in said:
        url = said.get("OPENAI_BASE_URL", OPENAI_URL)
        model = OPENAI_MODEL if url.rstrip("/") == OPENAI_URL else None
        offers.append(("openai", "OPENAI_API_KEY", {"base_url": url, "model": model} | _key("OPENAI_API_KEY", said)))
    offers += [offer for provider in PROVIDERS if (offer := _of(provider, said)) is not None]
    offers += _of_clouds(said)
    if "OLLAMA_HOST" in said:
        offers.append(("ollama", "OLLAMA_HOST", {"base_url": _ollama_url(said["OLLAMA_HOST"]), "price": FREE}))
    if "VLLM_BASE_URL" in said:
        expert = {"base_url": said["VLLM_BASE_URL"], "price": FREE} | _key("VLLM_API_KEY", said)
        offers.append(("vllm", "VLLM_BASE_URL", expert))
    return offers


def _of(provider: Provider, said: Mapping[str, str]) -> tuple[str, str, dict[str, Any]] | None:
    """A provider whose key is set."""
    variable = f"{provider.prefix}_API_KEY"
    if variable not in said:
        return None
    expert: dict[str, Any] = {"model": provider.model, "api_key_env": variable}
    elsewhere = said.get(f"{provider.prefix}_BASE_URL")
    if provider.url is None:
        expert |= {"kind": "litellm", "before_model": provider.table}
        expert |= {"base_url": elsewhere} if elsewhere else {}
    else:
        expert |= {"base_url": elsewhere or provider.url, "stream_usage": provider.stream_usage}
    return provider.name, variable, expert


def _of_clouds(said: Mapping[str, str]) -> list[tuple[str, str, dict[str, Any]]]:
    """Azure, Bedrock and Vertex, where the variables alone suffice."""
    offers: list[tuple[str, str, dict[str, Any]]] = []
    if "AZURE_API_KEY" in said and {"AZURE_API_BASE", "AZURE_MODEL"} <= said.keys():
        url = f"{said['AZURE_API_BASE'].rstrip('/').removesuffix('/openai/v1')}/openai/v1"  # speaks the OpenAI API
        offers.append(("azure", "AZURE_API_KEY", {"base_url": url, "api_key_env": "AZURE_API_KEY"}))
    region = next((said[name] for name in AWS_REGIONS if name in said), None)
    if region and (BEDROCK_TOKEN in said or "BEDROCK_MODEL" in said):
        nova = f"{AWS_PROFILES.get(region.split('-')[0], '')}{NOVA}"
        bedrock = {"kind": "litellm", "before_model": "bedrock/", "model": nova, "params": {"aws_region_name": region}}
        offers.append(("bedrock", "BEDROCK_MODEL", bedrock | _key(BEDROCK_TOKEN, said)))
    if {"VERTEXAI_PROJECT", "VERTEXAI_LOCATION"} <= said.keys():
        where = {"vertex_project": said["VERTEXAI_PROJECT"], "vertex_location": said["VERTEXAI_LOCATION"]}
        vertex = {"kind": "litellm", "before_model": "vertex_ai/", "model": VERTEX_MODEL, "params": where}
        offers.append(("vertexai", "VERTEXAI_PROJECT", vertex))
    return offers


def _lacks(said: Mapping[str, str], lacking: list[str], installed: Callable[[str], bool]) -> list[Problem]:
    """What was meant, perhaps, and is not whole."""
    notes = []
    if lacking:
        notes.append(Problem(", ".join(lacking), "", f"no expert was made of it: it needs litellm ({INSTALL})"))
    if "AZURE_API_KEY" in said and (missing := {"AZURE_API_BASE", "AZURE_MODEL"} - said.keys()):
        wanted = " and ".join(sorted(missing))
        notes.append(Problem("AZURE_API_KEY", "", f"no expert was made of it: {wanted} must be set, too"))
    if BEDROCK_TOKEN in said and not any(name in said for name in AWS_REGIONS):
        notes.append(Problem(BEDROCK_TOKEN, "", "no expert was made of it: AWS_REGION must be set, too"))
    if "VERTEXAI_PROJECT" in said and "VERTEXAI_LOCATION" not in said:
        notes.append(Problem("VERTEXAI_PROJECT", "", "no expert was made of it: VERTEXAI_LOCATION must be set, too"))
    elif "VERTEXAI_PROJECT" in said and not installed("google.auth"):
        notes.append(Problem("VERTEXAI_PROJECT", "", "no expert was made of it: pip install google-auth"))
    return notes


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package above it
        return False


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


@dataclass(frozen=True, slots=True)
class Offered:
    """A `FirstModel` that asks each server until it has answered once, and then no more.

    `known` is the first model by base_url. What a server said at start holds until a restart: one that is down while
    somebody edits the policy keeps its expert.
    """

    ask: FirstModel
    known: dict[str, str] = field(default_factory=dict)

    def __call__(self, base_url: str, key: str | None) -> str | None:
        if base_url not in self.known and (model := self.ask(base_url, key)) is not None:
            self.known[base_url] = model
        return self.known.get(base_url)


def first_model(base_url: str, key: str | None, egress: Egress = Egress()) -> str | None:  # noqa: B008  a constant
    """The first model that `GET /models` lists; None if nobody answers so within two seconds.

    It goes the way that the experts go (proxy and CA) and no other, and follows no redirect: the key is the server's.
    """
    try:
        request = urllib.request.Request(f"{base_url}/models")  # noqa: S310  the scheme is checked
        if key:
            request.add_unredirected_header("Authorization", f"Bearer {key}")
        if (proxy := egress.proxy_for(base_url)) is not None:
            _go_through(proxy, request)
        with _opener(egress).open(request, timeout=ASK_TIMEOUT_S) as response:
            listing = msgspec.json.decode(response.read(LISTING_BYTES))
        model = listing["data"][0]["id"]
    except (OSError, HTTPException, ValueError, LookupError, TypeError, RecursionError):
        return None
    return model if isinstance(model, str) else None


def _opener(egress: Egress) -> urllib.request.OpenerDirector:
    """Only what is needed: urllib's own takes proxies from the environment, and the key along to where it is sent."""
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler(context=egress.tls()))
    opener.add_handler(urllib.request.HTTPErrorProcessor())
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())  # raises for all but 2xx
    return opener


def _go_through(proxy: str, request: urllib.request.Request) -> None:
    parts = urlsplit(proxy)
    if parts.username is not None:
        said = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        request.add_header("Proxy-authorization", f"Basic {base64.b64encode(said).decode()}")
    request.set_proxy(parts.netloc.rpartition("@")[2], "http" if request.type == "http" else "https")
