"""What the gateway is told at start: the `server` half of the configuration, and the policy it begins with.

    a command's own option  >  secret file  >  CONCLAVE__SERVER__PORT  >  the YAML file  >  the default

Only the server half can be set by environment and secret files: the policy is a document with a digest, and what it
says must stand in it. Nothing is read before `load_settings` is called.
"""

import ipaddress
import os
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from conclave.gateway.experts import price_table
from conclave.gateway.experts.egress import Allowed, Egress, search_domains, trust
from conclave.gateway.policy import table
from conclave.gateway.policy.classifier import ClassifierSettings, unusable_classifier
from conclave.gateway.policy.discover import FirstModel, Found, Offered, discover, first_model
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.envelope import unusable_keys
from conclave.gateway.policy.expecting import unusable_heads
from conclave.gateway.policy.load import (
    ENCODER,
    QUOTING,
    complete,
    cross_check,
    expert_names,
    explain,
    forbidden_addresses,
    meant,
    missing_documents,
    missing_keys,
    silent_trials,
    unknown_providers,
)
from conclave.gateway.policy.own import untaught
from conclave.gateway.policy.packages import LockFiles
from conclave.gateway.policy.part import Part
from conclave.gateway.policy.second import unusable_second
from conclave.gateway.policy.signatures import PackFiles
from conclave.gateway.policy.source import ConfigError, Loc, Problem, Source, dotted, read_source
from conclave.gateway.policy.topics import unlearnable
from conclave.gateway.policy.watch import Seen, look_at
from conclave.gateway.telemetry.names import GenAINames

PREFIX: Final = "CONCLAVE__"
DEFAULT_FILE: Final = Path("conclave.yaml")
SECRETS_DIR: Final = Path("/run/secrets")  # where Docker and Kubernetes put them
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
DEFAULTS: Final = Source(label="the defaults", data={}, lines={})  # where no file says anything


def origin(value: str) -> str:
    """A web origin as browsers send it, or `*`. Raises ValueError that says what was meant."""
    if value == "*":
        return value
    try:
        parts = urlsplit(value)
        sound = parts.scheme and parts.hostname and f"{parts.scheme}://{parts.netloc}" == value and not parts.username
        sound = (
            sound
            and parts.port != 0
            and value[-1] != ":"
            and value.isprintable()
            and value.isascii()
            and " " not in value
        )
    except ValueError:
        sound = False
    if not sound:
        raise ValueError(f"{value!r} is no origin such as https://app.example or http://localhost:3000, and not *")
    if parts.port is not None and parts.port == DEFAULT_PORTS.get(parts.scheme):
        meant = value.rpartition(":")[0]
        raise ValueError(
            f"{value!r} is no origin that a browser sends: it leaves the scheme's own port out; write {meant}"
        )
    return value.lower()


def cidr(value: str) -> str:
    """An address or a network. Raises ValueError that says what was meant."""
    try:
        return str(ipaddress.ip_network(value.strip()))
    except ValueError as error:
        raise ValueError(f"{value!r} is no address and no network such as 10.0.0.0/8 or fd00::/8 ({error})") from error


class CorsSettings(Part):
    """Which web pages may use the API from a browser."""

    origins: tuple[Annotated[str, AfterValidator(origin)], ...] = Field(
        default=(), description="Origins such as https://app.example, or `*`: any; none: CORS is off."
    )
    max_age_s: int = Field(default=600, ge=0, le=86_400, description="How long a browser may remember a preflight.")


def reachable(value: str) -> str:
    """An entry of `egress.allow`. Raises ValueError that says what was meant."""
    Allowed.of([value])
    return value


def proxy_url(value: SecretStr) -> SecretStr:
    """The URL of an HTTP proxy, perhaps with credentials. Raises ValueError, which never shows the value."""
    try:
        parts = urlsplit(value.get_secret_value())
        sound = parts.scheme == "http" and parts.hostname and parts.port != 0 and not (parts.query or parts.fragment)
    except ValueError:
        sound = False
    if not sound:
        raise ValueError("must be an http:// URL such as http://proxy:3128")
    return value


class EgressSettings(Part):
    """Where experts may be, and how they are reached."""

    allow: tuple[Annotated[str, AfterValidator(reachable)], ...] = Field(
        default=(),
        description="Names, addresses and networks that are not public and where experts may be, all the same.",
    )
    proxy: Annotated[SecretStr, AfterValidator(proxy_url)] | None = Field(
        default=None, description="URL of an HTTP proxy for all experts that are not on this machine."
    )
    no_proxy: tuple[Annotated[str, AfterValidator(reachable)], ...] = Field(
        default=(), description="Names, addresses and networks that are reached without it."
    )
    ca_file: Path | None = Field(default=None, description="PEM file with CAs to trust beside the system's.")

    def open(self, trusted_hosts: Iterable[str] = ()) -> Egress:
        """What the experts' connections obey. `trusted_hosts` are those that the operator's environment names."""
        search = search_domains()
        return Egress(
            allowed=Allowed.of([*self.allow, *trusted_hosts], search=search),
            proxy=self.proxy.get_secret_value() if self.proxy is not None else None,
            direct=Allowed.of(self.no_proxy, search=search),
            ca_file=self.ca_file,
        )


class Telemetry(Part):
    """What is told to other systems beside the log and `/metrics`."""

    spans: bool = Field(
        default=False, description="OpenTelemetry spans, by OTLP; where they go is set by the OTEL_* variables."
    )
    otlp_metrics: bool = Field(default=False, description="Send the metrics by OTLP, too; `/metrics` has them anyway.")
    gen_ai_metrics: GenAINames = Field(
        default="newest", description="Names of the `gen_ai` metrics: `newest`, `older` or `both`."
    )


class ServerSettings(Part):
    """The `server` half: read once, at start."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address of the API.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port of the API; 0: any free one.")
    admin_host: str = Field(default="127.0.0.1", min_length=1, description="Address of /metrics.")
    admin_port: int = Field(default=8081, ge=0, le=65535, description="Port of /metrics; 0: any free one.")
    state_dir: Path = Field(default=Path(".conclave"), description="Folder of the journal, the database and the keys.")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL; null: SQLite in the state folder.")
    grace_s: float = Field(
        default=20.0, ge=0, le=3600, description="How long running answers may finish after SIGTERM."
    )
    drain_delay_s: float = Field(
        default=0.0,
        ge=0,
        le=600,
        description="How long after SIGTERM new calls are still served, for load balancers to notice; then `grace_s`.",
    )
    max_calls: int = Field(
        default=4096, ge=1, le=1_000_000, description="Calls in work at once, waiting for an expert included."
    )
    max_queue: int = Field(
        default=1024, ge=0, le=100_000, description="Calls that may stand in line when the gateway is overloaded."
    )
    max_queue_s: float = Field(default=5.0, gt=0, le=600, description="How long a call may stand in line before a 429.")
    cors: CorsSettings = Field(default_factory=CorsSettings, description="Which web pages may use the API.")
    trusted_proxies: tuple[Annotated[str, AfterValidator(cidr)], ...] = Field(
        default=(), description="Addresses and networks of proxies whose word on a client's address counts."
    )
    forwarded_header: Literal["x-forwarded-for", "forwarded"] = Field(
        default="x-forwarded-for", description="The header that the trusted proxies write; the other is ignored."
    )
    egress: EgressSettings = Field(default_factory=EgressSettings, description="Where experts may be.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is logged."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="JSON lines, or coloured text for people."
    )
    classifier: ClassifierSettings = Field(
        default_factory=ClassifierSettings, description="What says of which category a question is."
    )
    telemetry: Telemetry = Field(default_factory=Telemetry, description="What is told to other systems.")
    journal_min_free_bytes: int = Field(
        default=67_108_864, ge=0, description="Less free disk than this answers 503 before an expert is asked."
    )
    keys_refresh_s: float = Field(
        default=5.0, gt=0, le=3600, description="How soon a new or revoked API key is noticed by a running gateway."
    )
    policy_refresh_s: float = Field(
        default=2.0,
        gt=0,
        le=3600,
        description="How soon a rollback, another replica's new policy, or a changed key file is noticed.",
    )

    @model_validator(mode="after")
    def _two_doors(self) -> Self:
        if self.port == self.admin_port != 0 and self.host == self.admin_host:
            raise ValueError(f"port and admin_port are both {self.port}")
        return self


class ConfigFile(Part):
    """The whole file."""

    server: ServerSettings = Field(default_factory=ServerSettings, description="Read at start.")
    policy: PolicyDocument = Field(default_factory=PolicyDocument, description="Who may be asked, for what.")


@dataclass(frozen=True, slots=True)
class Settings:
    """All that the gateway starts with. `policy` is complete: its experts and its default row are never empty.

    `trusted_hosts` are those of experts that the environment names. `warnings` are what a person should know and what
    does not hinder the start. `seen` is what the file was when it was read, `policy_said` whether it has a
    policy half, `overrides` are a command's options, `offered` the models that servers were asked for, by base_url: all
    to read it again. `packs` are the files of signatures that the policy names, and what each was when it was read.
    """

    server: ServerSettings
    policy: PolicyDocument
    source: Path | None = None
    trusted_hosts: tuple[str, ...] = ()
    warnings: tuple[Problem, ...] = ()
    seen: Seen = ""
    policy_said: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    offered: Mapping[str, str] = field(default_factory=dict)
    packs: Mapping[Path, Seen] = field(default_factory=dict)


def load_settings(config: Path | None = None, **server_overrides: Any) -> Settings:
    """The settings from `config`, else from $CONCLAVE_CONFIG, else from ./conclave.yaml, else the defaults.

    `server_overrides` are a command's options (None: not given). Raises ConfigError with every problem found.
    """
    overrides = {name: value for name, value in server_overrides.items() if value is not None}
    return _read(_config_path(config), overrides, {})


def read_again(before: Settings) -> Settings:
    """What the same file says now. Servers that have answered are not asked again: they may be down for a moment.

    Raises ConfigError.
    """
    return _read(before.source, before.overrides, before.offered)


def _read(path: Path | None, overrides: Mapping[str, Any], offered: Mapping[str, str]) -> Settings:
    seen = look_at(path) if path else ""
    source = read_source(path) if path else DEFAULTS
    flags = _no_flags(source, ServerSettings, ("server",))
    problems = [*source.problems, *_unknown_halves(source), *flags, *_unknown_variables()]
    server: ServerSettings | None = None
    policy: PolicyDocument | None = None
    packs: Mapping[Path, Seen] = {}
    try:
        server = _server(source, overrides)
    except ConfigError as error:
        problems += error.problems
    half = source.data.get("policy")
    named = expert_names(half)
    asked = Offered(_ask_through(server), dict(offered))
    found = Found({}, ()) if named else discover(os.environ, first_model=asked)
    problems += cross_check(half, {QUOTING, ENCODER, *named, *found.experts}, source.where)
    try:
        policy = complete(PolicyDocument.model_validate({} if half is None else half), found.experts)
        problems += missing_documents(policy, source.where)
        files = PackFiles(policy, source.where)
        policy, packs = files.document, files.seen
        problems += files.problems
        locks = LockFiles(policy, source.where)
        policy, packs = locks.document, {**packs, **locks.seen}
        problems += locks.problems
    except ValidationError as error:
        problems += explain(error, PolicyDocument, source.where, above=("policy",))
    trusted = tuple(
        place.host for expert in found.experts.values() for place in expert.resolved_deployments() if place.host
    )
    if server is not None:
        problems += _no_ca(server.egress.ca_file, _where_server(source, overrides))
        problems += unusable_classifier(server.classifier, _where_server(source, overrides))
    if server is not None and policy is not None:
        problems += forbidden_addresses(policy, server.egress.open(trusted).allowed, source.where)
    if policy is not None and not problems:
        problems += [*table.problems(policy, source.where), *unusable_heads(policy, source.where)]
        problems += unusable_second(policy, source.where)
        if server is not None:
            problems += untaught(policy.routing.own_categories, source.where, server.classifier)
            problems += unlearnable(policy, source.where, server.classifier)
    if problems or server is None or policy is None:
        raise ConfigError(tuple(sorted(dict.fromkeys(problems), key=_line)))
    unknown = unknown_providers(policy, price_table.providers, source.where)
    unused = table.unused_scores(policy, source.where)
    silent = silent_trials(policy, source.where)
    unsigned = unusable_keys(policy, os.environ, source.where)
    hints = (*found.notes, *unknown, *unused, *silent, *unsigned, *missing_keys(policy, os.environ, source.where))
    return Settings(
        server=server,
        policy=policy,
        source=path,
        trusted_hosts=trusted,
        warnings=hints,
        seen=seen,
        policy_said=half is not None,
        overrides=overrides,
        offered=asked.known,
        packs=packs,
    )


def _ask_through(server: ServerSettings | None) -> FirstModel:
    """How to ask a server for its first model: the way that experts go.

    While that way is wrong nobody is asked: what is found then only lends its names to the search for other problems.
    """
    if server is None:
        return lambda _url, _key: "unknown"
    egress = server.egress.open()
    return lambda url, key: first_model(url, key, egress)


def load_server(config: Path | None = None, **server_overrides: Any) -> ServerSettings:
    """The server half alone, for commands that must work while the policy half is wrong. Raises ConfigError."""
    path = _config_path(config)
    overrides = {name: value for name, value in server_overrides.items() if value is not None}
    return _server(read_source(path) if path else DEFAULTS, overrides)


def _line(problem: Problem) -> int:
    """From top to bottom; what is not in the file comes first."""
    line = problem.where.rpartition(":")[2]
    return int(line) if line.isdigit() else 0


def _config_path(config: Path | None) -> Path | None:
    if config is not None:
        return config
    if named := os.environ.get("CONCLAVE_CONFIG"):
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


class _Layers(BaseSettings):
    """The server half from all its layers; `_server` adds the file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="ignore")

    server: ServerSettings = Field(default_factory=ServerSettings)


def _server(source: Source, overrides: Mapping[str, Any]) -> ServerSettings:
    """Raises ConfigError."""
    half = source.data.get("server")

    class Layers(_Layers):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  pydantic-settings names them
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            secrets = NestedSecretsSettingsSource(
                file_secret_settings, secrets_dir=_secrets_dir(), secrets_dir_missing="ok"
            )
            from_file = InitSettingsSource(settings_cls, {} if half is None else {"server": half})
            return init_settings, secrets, env_settings, from_file

    said: dict[str, Any] = {"server": dict(overrides)} if overrides else {}
    try:
        return Layers(**said).server
    except ValidationError as error:
        raise ConfigError(tuple(explain(error, _Layers, _where_server(source, overrides)))) from error
    except SettingsError as error:
        words = f"what stands for a whole group of settings must be JSON ({error})"
        raise ConfigError((Problem("environment", "", words),)) from error


def _secrets_dir() -> Path:
    return Path(os.environ.get("CONCLAVE_SECRETS_DIR") or SECRETS_DIR)


def _where_server(source: Source, overrides: Mapping[str, Any]) -> Any:
    """Where a server setting came from, for the person who has to mend it."""

    def where(loc: Loc) -> str:
        if len(loc) > 1 and loc[1] in overrides:
            return f"--{str(loc[1]).replace('_', '-')}"
        name = "__".join(("conclave", *map(str, loc)))
        for file in _secret_files():
            if file.name.lower() == name:
                return str(file)
        for variable in os.environ:
            if variable.lower() == name:
                return variable
        return source.where(loc)

    return where


def _secret_files() -> list[Path]:
    folder = _secrets_dir()
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _unknown_halves(source: Source) -> Iterator[Problem]:
    for key in source.data:
        if key not in ConfigFile.model_fields:
            halves = ((half, field.annotation) for half, field in ConfigFile.model_fields.items())
            home = next((half for half, model in halves if key in getattr(model, "model_fields", ())), None)
            words = f"; it belongs under '{home}:'" if home else meant(key, ConfigFile.model_fields)
            yield Problem(source.where((key,)), key, f"unknown key{words}")


def _no_flags(source: Source, model: type[BaseModel], above: Loc) -> Iterator[Problem]:
    """Words of the file (`on`, `yes`) that pydantic takes for true or false: it must where a variable says them."""
    half: Any = source.data
    for part in above:
        half = half.get(part) if isinstance(half, dict) else None
    for key, value in half.items() if isinstance(half, dict) else ():
        kind = model.model_fields[key].annotation if key in model.model_fields else None
        if kind is bool and not isinstance(value, bool | None):
            yield Problem(source.where((*above, key)), dotted((*above, key)), "must be true or false")
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _no_flags(source, kind, (*above, key))


def _no_ca(file: Path | None, where: Callable[[Loc], str]) -> Iterator[Problem]:
    """Said here, where the file may be mended; the context of the experts' connections is made at the start."""
    loc: Loc = ("server", "egress", "ca_file")
    try:
        if file is not None:
            trust(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), file)
    except OSError as error:
        yield Problem(where(loc), dotted(loc), str(error))


def _unknown_variables() -> Iterator[Problem]:
    """A mistyped CONCLAVE__SEVER__PORT must not be passed over in silence."""
    for name in sorted({*os.environ, *(file.name for file in _secret_files())}):
        if name.upper().startswith(PREFIX) and name.upper().split("__")[1] != "SERVER":
            yield Problem(
                name, "", f"only settings of the server half come from outside the file ({PREFIX}SERVER__...)"
            )
