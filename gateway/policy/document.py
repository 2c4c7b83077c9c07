"""The policy document: who may be asked, for what, within which limits. A value, checked for shape only.

What one part says of another (a row that names an expert) is checked in `load.py`; what it means for a call is in
`rules.py`. Never holds a key, only the name of the variable or file that does.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, model_validator

from conclave.gateway.experts.catalog import Capability, facts_of, whole
from conclave.gateway.experts.litellm.request import EMBEDDING, PARAMETERS
from conclave.gateway.policy.answers import ANSWERS, AnswerChecks, Canary
from conclave.gateway.policy.capped import Effort
from conclave.gateway.policy.defences import CHECKS, Checks
from conclave.gateway.policy.envelope import EnvelopeSettings
from conclave.gateway.policy.fences import FenceSettings
from conclave.gateway.policy.links import LinkSettings
from conclave.gateway.policy.packages import PackageSettings
from conclave.gateway.policy.part import NAME, CategoryName, ExpertName, Flag, Part, Row
from conclave.gateway.policy.parts import PartSettings
from conclave.gateway.policy.retrieval import RetrievalSettings
from conclave.gateway.policy.routing import Routing
from conclave.gateway.policy.scopes import SCOPE, TOOL, Scopes
from conclave.gateway.policy.second import SecondSettings
from conclave.gateway.policy.shift import ShiftSettings
from conclave.gateway.policy.signatures import SignatureSettings
from conclave.gateway.policy.standing import OodaSettings, StandingSettings
from conclave.gateway.policy.tools import ToolsSettings
from conclave.gateway.policy.topics import TopicSettings
from conclave.gateway.policy.turns import TurnsSettings

MODEL: Final = r"^[\x21-\x7e]{1,128}$"
VARIABLE: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
TAG: Final = r"^[a-z][a-z0-9_.-]{0,63}$"  # as access/tags.py takes them
TAG_VALUE: Final = r"^[!-~]([ -~]{0,62}[!-~])?$"
PARAM: Final = r"^[a-z][a-z0-9_]{0,63}$"
SECRET: Final = re.compile(r"key|secret|password|credential|bearer|(?:^|_)token$")  # of a parameter's name
ADDRESS: Final = re.compile(r"(?:^|_)(?:endpoint|url|uri|base|host|proxy)$")  # of a parameter's name
REGIONS: Final = frozenset(  # they become a part of the provider's host name
    {"aws_region_name", "region_name", "vertex_location", "vertex_ai_location", "watsonx_region_name", "oci_region"}
)
PLACES: Final = REGIONS | {  # which account of the provider's, and which of its models
    *("api_version", "organization", "project", "project_id", "space_id", "deployment_id", "account_id"),
    *("aws_role_name", "aws_session_name", "aws_external_id", "aws_profile_name"),
    *("vertex_project", "vertex_ai_project", "azure_scope", "tenant_id", "client_id"),
    *("oci_user", "oci_fingerprint", "oci_tenancy", "oci_compartment_id", "oci_serving_mode"),
}
ASKED: Final = (  # defaults of a request, beside OpenAI's parameters
    frozenset({"drop_params", "top_k", "top_a", "min_p", "typical_p", "repetition_penalty", "safe_prompt", "truncate"})
    | frozenset({"input_type", "task_type", "title", "reasoning", "include_reasoning", "cache_control", "guardrail"})
)
PARAMS: Final = PLACES | ASKED | PARAMETERS | EMBEDDING
REGION: Final = re.compile(r"[A-Za-z0-9-]{1,63}")
PLACE: Final = re.compile(r"(?!.*//)[A-Za-z0-9_.,:=+@/-]{1,256}")
PATTERNS: Final = {
    PARAM: "may hold up to 64 of a-z, 0-9 and `_`, and begins with a letter",
    NAME: "may hold up to 64 letters, digits, dots, dashes and underscores",
    MODEL: "may hold up to 128 visible ASCII characters",
    TAG: "may hold up to 64 of a-z, 0-9, `_`, `.` and `-`, and begins with a letter",
    TAG_VALUE: "may hold up to 64 printable ASCII characters",
    SCOPE: "must be a cluster and a right, such as code.read or code.synth; the rights are read and synth",
    TOOL: "may hold up to 128 letters, digits and `_.:/-`",
    VARIABLE: "must be the name of an environment variable, not what is in it",
}
BUILT_IN: Final[Mapping[str, frozenset[str]]] = {  # kinds that need no server, and what they can do
    "quoting": frozenset({"chat"}),
    "encoder": frozenset({"embeddings"}),
}
StageMode: TypeAlias = Literal["on", "observe", "off"]


def http_url(value: str) -> str:
    """The URL without a slash at its end. Raises ValueError, which never shows the value: it could hold a key."""
    try:
        parts = urlsplit(value)
        sound = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is no number
        sound = False
    if not sound or " " in value or not value.isprintable():
        raise ValueError("must be an http:// or https:// URL, such as https://api.openai.com/v1 or http://gpu:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must hold no user, password, query or fragment; keys go into api_key_env or api_key_file")
    return value.rstrip("/")


def _sound_params(params: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """litellm takes hundreds of keywords, and some name an address, a file or a key: only those known here reach it."""
    for name, value in params.items():
        if SECRET.search(name):
            raise ValueError(f"{name} looks like a key; keys go into api_key_env, api_key_file or the environment")
        if ADDRESS.search(name):
            raise ValueError(f"{name} looks like an address; the only one of an expert is its base_url")
        if name not in PARAMS:
            raise ValueError(f"{name} is not a parameter of the provider's that a policy may set; {_known(PLACES)}")
        if name in REGIONS and not (isinstance(value, str) and REGION.fullmatch(value)):
            raise ValueError(f"{name} must be the name of a region, such as eu-west-1")
        if name in PLACES and not PLACE.fullmatch(str(value)):
            raise ValueError(f"{name} must be a name, not an address")
    return params


def _known(names: Collection[str]) -> str:
    return f"known are those of a chat request, and {', '.join(sorted(names))}"


ParamName = Annotated[str, StringConstraints(pattern=PARAM)]
ModelName = Annotated[str, StringConstraints(pattern=MODEL)]
TagName = Annotated[str, StringConstraints(pattern=TAG)]
TagValue = Annotated[str, StringConstraints(pattern=TAG_VALUE)]
VariableName = Annotated[str, StringConstraints(pattern=VARIABLE)]
Url = Annotated[str, AfterValidator(http_url)]
Params = Annotated[dict[ParamName, JsonValue], AfterValidator(_sound_params)]


class Stages(Part):
    """Which stages work. `observe`: the stage works and is recorded, but nothing follows from it."""

    retrieve: StageMode = Field(default="on", description="Look calls up in the library of documents.")
    detect: StageMode = Field(default="on", description="Let the checks of `defences` look at what callers send.")
    route: StageMode = Field(default="on", description="Choose the expert by the question's category.")
    guard: StageMode = Field(default="on", description="Let the checks of `answers` look at what experts say.")


class Streams(Part):
    """What becomes of a stream whose expert fails after its first word; before that, a fallback takes over unseen."""

    on_failure: Literal["continue", "end"] = Field(
        default="continue",
        description="`continue`: the next expert goes on from the last word; `end`: an error event, and the end.",
    )


class DeploymentSettings(Part):
    """One place where an expert's model is served. What is not said here is as the expert says."""

    base_url: Url | None = Field(default=None, description="As the expert's.")
    model: str | None = Field(default=None, min_length=1, description="As the expert's.")
    params: Params | None = Field(default=None, description="As the expert's.")
    api_key_env: VariableName | None = Field(default=None, description="As the expert's.")
    api_key_file: Path | None = Field(default=None, description="As the expert's.")
    weight: float = Field(default=1.0, gt=0, le=1000, description="Its share of the calls, relative to the others.")

    @property
    def host(self) -> str:
        """The name or address in `base_url`; empty without one."""
        return urlsplit(self.base_url or "").hostname or ""


class Breaker(Part):
    """When a deployment is left alone for a while."""

    failures: int = Field(default=5, ge=1, le=5, description="Failures in a row after which it is no longer asked.")
    open_s: float = Field(default=30.0, gt=0, le=3600, description="Seconds until one call tries it again.")


class Price(Part):
    """USD per million tokens."""

    input: float = Field(ge=0, description="USD per million tokens that the expert reads.")
    output: float = Field(ge=0, description="USD per million tokens that the expert writes.")


class ExpertSettings(Part):
    """An expert: a model behind an OpenAI-compatible URL or a provider's API, or a built-in one."""

    kind: Literal["openai", "litellm", "quoting", "encoder"] = Field(
        default="openai",
        description="`openai`: any OpenAI-compatible server; `litellm`: a provider's own API (`anthropic/...`); "
        "built in: `quoting` (answers), `encoder` (embeddings).",
    )
    model: str | None = Field(
        default=None, min_length=1, description="The model's name at the server; for `litellm` after `<provider>/`."
    )
    base_url: Url | None = Field(
        default=None, description="The server's URL up to and with `/v1`; `litellm`: null is the provider's own."
    )
    params: Params | None = Field(
        default=None, description="`litellm` only: what the provider needs beside the key, such as `aws_region_name`."
    )
    api_key_env: VariableName | None = Field(default=None, description="The environment variable that holds the key.")
    api_key_file: Path | None = Field(
        default=None, description="The file that holds the key; comes before `api_key_env`."
    )
    deployments: tuple[DeploymentSettings, ...] = Field(
        default=(), description="Several places or keys for the same model."
    )
    capabilities: tuple[Capability, ...] | None = Field(
        default=None, description="What it can do; null: as the catalog knows the model."
    )
    price: Price | None = Field(default=None, description="What it costs; null: as the catalog knows the model.")
    quality: float | None = Field(
        default=None, ge=0, le=1, description="How good you find it; `auto:best` sorts by it."
    )
    size_b: float | None = Field(
        default=None, gt=0, le=1e6, description="Billion parameters, if you host it; null: it takes none of your room."
    )
    size_gb: float | None = Field(default=None, gt=0, le=1e6, description="Memory that hosting it takes; null: none.")
    active_b: float | None = Field(
        default=None, gt=0, le=1e6, description="Billion parameters at work in one call; null: `size_b`."
    )
    latency_ms: float | None = Field(default=None, gt=0, le=1e7, description="How long an average answer takes.")
    first_byte_s: float = Field(default=120.0, gt=0, le=3600, description="How long a stream may take to begin.")
    plain_s: float = Field(
        default=300.0, gt=0, le=3600, description="How long a plain answer may take to come; it comes whole."
    )
    idle_s: float = Field(default=60.0, gt=0, le=3600, description="How long it may be silent within an answer.")
    stream_usage: Flag = Field(
        default=True, description="Ask for token counts in streams; off for servers that refuse `stream_options`."
    )
    transport_retries: int = Field(
        default=2, ge=0, le=10, description="Further tries where the connection failed before a byte came."
    )
    breaker: Breaker = Field(default_factory=Breaker, description="When it is left alone for a while.")
    documents: Path | None = Field(
        default=None,
        description="`quoting` only: a folder of Markdown and text files to quote; null: only what is built in.",
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.documents is not None and self.kind != "quoting":
            raise ValueError("documents belongs to an expert of kind quoting")
        if self.kind in BUILT_IN:
            fixed = ("capabilities",) if self.kind == "encoder" else ()
            keys = ("model", "base_url", "params", "api_key_env", "api_key_file", *fixed)
            wrong = [key for key in keys if getattr(self, key) is not None]
            if wrong or self.deployments:
                raise ValueError(f"an expert of kind {self.kind} takes no {', '.join(wrong or ['deployments'])}")
            return self
        needed = ("model",) if self.kind == "litellm" else ("model", "base_url")
        for key in needed:
            if any(getattr(place, key) is None for place in self.resolved_deployments()):
                raise ValueError(f"{key} is missing")
        for place in self.resolved_deployments():
            if self.kind != "litellm" and place.params:
                raise ValueError("params belongs to an expert of kind litellm")
            if self.kind == "litellm" and not all(str(place.model).partition("/")[::2]):
                raise ValueError("model must name its provider, too, such as anthropic/claude-haiku-4-5")
        return self

    def can(self) -> frozenset[str]:
        """What it can do: as it says itself, else as the catalog knows its first deployment's model."""
        if self.capabilities is not None:
            return whole(self.capabilities)
        if self.kind in BUILT_IN:
            return BUILT_IN[self.kind]
        place = self.resolved_deployments()[0]
        return whole(facts_of(place.model or "", place.base_url, kind=self.kind).capabilities)

    def resolved_deployments(self) -> tuple[DeploymentSettings, ...]:
        """Every place where this expert is served, with all that the expert says for them filled in."""
        mine = DeploymentSettings(
            base_url=self.base_url,
            model=self.model,
            params=self.params,
            api_key_env=self.api_key_env,
            api_key_file=self.api_key_file,
        )
        return tuple(_filled(place, mine) for place in self.deployments) or (mine,)


def _filled(place: DeploymentSettings, expert: DeploymentSettings) -> DeploymentSettings:
    own_key = place.api_key_env is not None or place.api_key_file is not None
    keys = {} if own_key else {"api_key_env": expert.api_key_env, "api_key_file": expert.api_key_file}
    params = {**(expert.params or {}), **(place.params or {})} or None
    return place.model_copy(
        update={
            "base_url": place.base_url or expert.base_url,
            "model": place.model or expert.model,
            "params": params,
            **keys,
        }
    )


class Limits(Part):
    """What one call, and one key, may use."""

    body_bytes: int = Field(default=8_388_608, ge=1024, le=268_435_456, description="The largest request body.")
    body_timeout_s: float = Field(default=30.0, gt=0, le=3600, description="How long the body may take to arrive.")
    messages: int = Field(default=1000, ge=1, le=100_000, description="Messages in one request.")
    text_chars: int = Field(
        default=1_000_000, ge=1, le=100_000_000, description="Characters in all texts of one request together."
    )
    nesting: int = Field(default=64, ge=4, le=500, description="How deep the JSON of a request may be nested.")
    deadline_s: float = Field(default=600.0, gt=0, le=86_400, description="How long one call may take in all.")
    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000, description="Per key; null: no limit.")
    answer_tokens: int | None = Field(
        default=None, ge=1, le=10_000_000, description="Tokens that an answer may have; who asks for more gets these."
    )
    answer_chars: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="Characters after which a stream is cut; null: no limit."
    )
    repeated_chars: int | None = Field(
        default=32_768,
        ge=8192,
        le=1_000_000_000,
        description="Characters of nothing but the same, over and over, from which a stream is cut; null: it is not.",
    )
    answers: int | None = Field(default=None, ge=1, le=128, description="Answers in one call, `n` and `best_of`.")
    reasoning_effort: Effort | None = Field(
        default=None, description="The most effort that a call may ask for: `low`, `medium`, `high`; more is lowered."
    )
    tool_turns: int | None = Field(
        default=None, ge=1, le=100_000, description="Turns with tool calls since the last word of the user."
    )
    same_tool_calls: int | None = Field(
        default=None, ge=1, le=100_000, description="Of these calls, how many may be the same, arguments and all."
    )


class Audit(Part):
    """What the record keeps."""

    keep_text: Flag = Field(default=False, description="Keep the texts of requests in clear, not only as keyed hashes.")
    keep_days: int | None = Field(
        default=None, ge=1, description="What `conclave audit prune` removes is older; null: nothing is."
    )


class TenantAudit(Part):
    """What the record keeps of one tenant."""

    keep_text: Flag = Field(default=False, description="As in `audit`, for this tenant.")


class TenantOverrides(Part):
    """What is different for one tenant; what is not said here is as for all."""

    stages: Stages = Field(default_factory=Stages, description="As `policy.stages`.")
    streams: Streams = Field(default_factory=Streams, description="As `policy.streams`.")
    limits: Limits = Field(default_factory=Limits, description="As `policy.limits`.")
    audit: TenantAudit = Field(default_factory=TenantAudit, description="What the record keeps of this tenant.")
    experts: Row | None = Field(default=None, description="The only experts that this tenant reaches; null: all.")
    defences: Checks | None = Field(default=None, description="This tenant's checks; null: those of all.")
    answers: AnswerChecks | None = Field(default=None, description="This tenant's checks of answers; null: as for all.")
    parts: PartSettings | None = Field(default=None, description="This tenant's images and files; null: as for all.")
    turns: TurnsSettings | None = Field(default=None, description="As `policy.turns`, as a whole; null: as for all.")
    standing: StandingSettings | None = Field(
        default=None, description="As `policy.standing`, as a whole; null: as for all."
    )
    shift: ShiftSettings | None = Field(default=None, description="As `policy.shift`, as a whole; null: as for all.")
    signatures: SignatureSettings | None = Field(default=None, description="This tenant's rules; null: those of all.")
    topics: TopicSettings | None = Field(default=None, description="This tenant's topics; null: those of all.")
    packages: PackageSettings | None = Field(default=None, description="What this tenant uses; null: as for all.")
    links: LinkSettings | None = Field(default=None, description="This tenant's hosts; null: as for all.")
    fences: FenceSettings = Field(default_factory=FenceSettings, description="As `policy.fences`.")
    envelope: EnvelopeSettings | None = Field(
        default=None, description="Whether this tenant's calls are signed, and its keys; null: as for all."
    )
    tools: ToolsSettings | None = Field(default=None, description="This tenant's tools; null: as for all.")
    retrieval: RetrievalSettings | None = Field(
        default=None, description="What this tenant's calls are looked up in; null: as for all."
    )


class PolicyDocument(Part):
    """The policy. Its digest stands in every record, so that a decision can be explained later."""

    name: str = Field(default="default", min_length=1, max_length=64, description="A name for people.")
    stages: Stages = Field(default_factory=Stages, description="Which stages work.")
    streams: Streams = Field(default_factory=Streams, description="What becomes of a stream that breaks off.")
    experts: dict[ExpertName, ExpertSettings] = Field(
        default_factory=dict, description="The experts by name; none: they are found from the environment."
    )
    categories: dict[CategoryName, Row] = Field(
        default_factory=dict, description="Category to experts: the first is asked, the others are its fallbacks."
    )
    default: tuple[ExpertName, ...] = Field(
        default=(),
        description="The row for unsure questions and for categories that are not listed; empty: all models.",
    )
    routing: Routing = Field(default_factory=Routing, description="How an expert is chosen beyond that.")
    defences: Checks = Field(
        default=CHECKS, description="The checks of requests, in this order, and what follows from what they find."
    )
    answers: AnswerChecks = Field(
        default=ANSWERS, description="The checks of answers, in this order, and what follows from what they find."
    )
    canaries: tuple[Canary, ...] = Field(
        default=(), max_length=64, description="Words that no answer may hold: put them into what must stay inside."
    )
    parts: PartSettings = Field(
        default_factory=PartSettings, description="What becomes of images, files and recordings in requests."
    )
    turns: TurnsSettings = Field(
        default_factory=TurnsSettings, description="What the last turns of a conversation show together."
    )
    standing: StandingSettings = Field(
        default_factory=StandingSettings, description="How far keys and conversations are trusted, and what follows."
    )
    ooda: OodaSettings = Field(
        default_factory=OodaSettings, description="The loop that answers attacks with actions that end by themselves."
    )
    shift: ShiftSettings = Field(
        default_factory=ShiftSettings, description="Requests whose frame hides a risky wish, and how answers meet that."
    )
    signatures: SignatureSettings = Field(
        default_factory=SignatureSettings, description="What the check `signatures` looks for."
    )
    topics: TopicSettings = Field(default_factory=TopicSettings, description="What the check `topics` looks for.")
    second_opinion: SecondSettings = Field(
        default_factory=SecondSettings, description="What the check `second_opinion` asks where others are in doubt."
    )
    packages: PackageSettings = Field(
        default_factory=PackageSettings, description="Packages that are in use, so that no answer is warned of them."
    )
    links: LinkSettings = Field(default_factory=LinkSettings, description="Hosts that answers may name freely.")
    fences: FenceSettings = Field(
        default_factory=FenceSettings, description="How data stands apart from orders in what an expert is sent."
    )
    envelope: EnvelopeSettings = Field(
        default_factory=EnvelopeSettings, description="Whether calls are signed, and with which keys."
    )
    tools: ToolsSettings = Field(
        default_factory=ToolsSettings, description="What the tools that requests offer may do."
    )
    retrieval: RetrievalSettings = Field(
        default_factory=RetrievalSettings, description="When calls are looked up in the library of documents."
    )
    scopes: Scopes = Field(
        default_factory=dict, description="What keys that are bound to one of these may reach, by `cluster.right`."
    )
    aliases: dict[ModelName, ModelName] = Field(
        default_factory=dict, description="Names that callers use, and the model that each stands for."
    )
    limits: Limits = Field(default_factory=Limits, description="What one call, and one key, may use.")
    audit: Audit = Field(default_factory=Audit, description="What the record keeps.")
    tags: dict[TagName, Annotated[tuple[TagValue, ...], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Request tags that are metric labels, with the values told apart; all others count as `other`.",
    )
    tenants: dict[ModelName, TenantOverrides] = Field(default_factory=dict, description="What is different by tenant.")
