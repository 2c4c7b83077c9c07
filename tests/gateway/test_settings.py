"""Where settings come from, which of them wins, and what the shipped files say."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from conclave.gateway.experts.providers import PROVIDERS
from conclave.gateway.policy import schema
from conclave.gateway.policy.part import CATEGORIES
from conclave.gateway.policy.source import ConfigError
from conclave.gateway.settings import ConfigFile, load_settings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "config" / "conclave.yaml"
RECIPES = sorted((ROOT / "config" / "recipes").glob("*.yaml"))
DOCS = ROOT / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No experts and no settings in the environment, no conclave.yaml in the folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONCLAVE_SECRETS_DIR", str(tmp_path / "secrets"))
    keys = [f"{provider.prefix}_API_KEY" for provider in PROVIDERS]
    urls = ("OPENAI_BASE_URL", "OLLAMA_HOST", "VLLM_BASE_URL", "AWS_BEARER_TOKEN_BEDROCK", "VERTEXAI_PROJECT")
    for name in (*keys, *urls, "OPENAI_API_KEY", "AZURE_API_KEY", "BEDROCK_MODEL", "CONCLAVE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def secret(name: str, value: str) -> None:
    folder = Path("secrets")
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(value)


def test_each_layer_wins_over_the_one_below(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().server.port == 8080
    Path("c.yaml").write_text("server: {port: 1, admin_port: 11}")
    assert load_settings(Path("c.yaml")).server.port == 1
    monkeypatch.setenv("CONCLAVE__SERVER__PORT", "2")
    assert load_settings(Path("c.yaml")).server.port == 2
    secret("conclave__server__port", "3\n")
    assert load_settings(Path("c.yaml")).server.port == 3
    settings = load_settings(Path("c.yaml"), port=4, host=None)
    assert (settings.server.port, settings.server.host, settings.server.admin_port) == (4, "127.0.0.1", 11)


def test_a_nested_setting_is_reached_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCLAVE__SERVER__TELEMETRY__SPANS", "true")
    monkeypatch.setenv("conclave__server__log_level", "debug")
    server = load_settings().server
    assert (server.telemetry.spans, server.log_level) == (True, "debug")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        pytest.param("CONCLAVE__SERVER__PROT", "1", "unknown key; did you mean 'port'?", id="mistyped"),
        pytest.param("CONCLAVE__SERVER__TELEMETRY__SPAN", "1", "did you mean 'spans'?", id="mistyped-below"),
        pytest.param("CONCLAVE__SEVER__PORT", "1", "only settings of the server half", id="mistyped-half"),
        pytest.param("CONCLAVE__POLICY__NAME", "x", "only settings of the server half", id="policy"),
        pytest.param("CONCLAVE__SERVER__PORT", "x", "should be a valid integer", id="type"),
        pytest.param("CONCLAVE__SERVER__TELEMETRY", "{", "must be JSON", id="broken-json"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert words in str(caught.value)
    (problem,) = caught.value.problems
    assert problem.where in {name, "environment"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("experts: {}", "experts: unknown key; it belongs under 'policy:'"),
        ("port: 9000", "port: unknown key; it belongs under 'server:'"),
        ("polcy: {}", "polcy: unknown key; did you mean 'policy'?"),
    ],
)
def test_a_key_at_the_top_of_the_file_is_told_its_place(line: str, words: str) -> None:
    Path("c.yaml").write_text(line)
    with pytest.raises(ConfigError) as wrong:
        load_settings(Path("c.yaml"))
    assert [str(problem) for problem in wrong.value.problems] == [f"c.yaml:1: {words}"]


@pytest.mark.parametrize("value", ["on", "yes", "1", "'true'", "zz"])
@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("policy: {{audit: {{keep_text: {}}}}}", "policy.audit.keep_text"),
        (
            "policy: {{experts: {{e: {{model: m, base_url: http://h, stream_usage: {}}}}}}}",
            "policy.experts.e.stream_usage",
        ),
        ("server: {{telemetry: {{spans: {}}}}}", "server.telemetry.spans"),
    ],
    ids=["policy", "expert", "server"],
)
def test_only_true_and_false_are_flags_in_the_file(text: str, key: str, value: str) -> None:
    """YAML 1.2 has no other words for them, and `on` means something else where a stage has three modes."""
    Path("c.yaml").write_text(text.format(value))
    with pytest.raises(ConfigError) as wrong:
        load_settings(Path("c.yaml"))
    assert [str(problem) for problem in wrong.value.problems] == [f"c.yaml:1: {key}: must be true or false"]
    Path("c.yaml").write_text(text.format("true"))
    load_settings(Path("c.yaml"))


@pytest.mark.parametrize("value", ["on", "yes", "1", "true"])
def test_a_variable_says_flags_as_people_do(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCLAVE__SERVER__TELEMETRY__SPANS", value)
    secret("conclave__server__telemetry__otlp_metrics", value)
    telemetry = load_settings().server.telemetry
    assert (telemetry.spans, telemetry.otlp_metrics) == (True, True)


def test_a_wrong_secret_file_and_a_wrong_option_are_named() -> None:
    secret("conclave__server__grace_s", "soon")
    secret("conclave__server__prot", "1")
    with pytest.raises(ConfigError) as caught:
        load_settings(admin_port=-1)
    where = {problem.where.rpartition("/")[2] for problem in caught.value.problems}
    assert where == {"--admin-port", "conclave__server__grace_s", "conclave__server__prot"}


def test_other_secrets_in_the_folder_are_not_ours() -> None:
    secret("openai_key", "sk-1")
    assert load_settings().warnings == ()


def test_the_file_is_the_one_named_then_the_variables_then_the_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("named", "variable", "conclave"):
        Path(f"{name}.yaml").write_text(f"policy: {{name: {name}}}")
    assert load_settings().policy.name == "conclave"
    monkeypatch.setenv("CONCLAVE_CONFIG", "variable.yaml")
    assert load_settings().policy.name == "variable"
    assert load_settings(Path("named.yaml")).policy.name == "named"
    assert load_settings(Path("named.yaml")).source == Path("named.yaml")


def test_a_file_that_was_named_and_is_not_there_is_an_error_not_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCLAVE_CONFIG", "missing.yaml")
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read"):
        load_settings()


def test_without_anything_the_quoting_expert_serves_alone() -> None:
    policy = load_settings().policy
    assert list(policy.experts) == ["quoting", "encoder"]
    assert policy.default == ("quoting",)


def test_a_found_expert_serves_and_the_quoting_one_is_there_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    policy = load_settings().policy
    assert next(iter(policy.experts)) == "openai"
    assert list(policy.experts)[-2:] == ["quoting", "encoder"]
    assert policy.default == ("openai",)


def test_a_file_that_names_experts_is_not_added_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    Path("c.yaml").write_text("policy: {experts: {mine: {base_url: http://h/v1, model: m}}}")
    assert list(load_settings(Path("c.yaml")).policy.experts) == ["mine", "quoting", "encoder"]


def test_a_file_without_experts_may_name_the_found_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    Path("c.yaml").write_text("policy: {categories: {code: [openai]}, aliases: {gpt-4o: openai}}")
    assert load_settings(Path("c.yaml")).policy.categories == {"code": ("openai",)}


def test_a_variable_that_makes_no_expert_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    (warning,) = load_settings().warnings
    assert warning.where == "OLLAMA_HOST"
    assert "OLLAMA_MODEL" in warning.message


def test_the_reference_file_says_exactly_the_defaults() -> None:
    named, unnamed = load_settings(REFERENCE), load_settings()
    assert (named.server, named.policy) == (unnamed.server, unnamed.policy)


def fields(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every setting with its path; `<name>` stands for what the user names."""
    for name, field in model.model_fields.items():
        path = f"{above}{name}"
        yield path, field
        inner = list(models_in(field.annotation))
        shape = str(field.annotation)
        many = "[]" if "tuple" in shape else ".<name>" * shape.count("dict[")
        for one in inner:
            yield from fields(one, f"{path}{many}.")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


SETTINGS = dict(fields(ConfigFile))


def test_the_walk_finds_the_deepest_settings() -> None:
    assert {"server.telemetry.spans", "policy.experts.<name>.deployments[].weight"} <= SETTINGS.keys()
    assert "policy.tenants.<name>.limits.requests_per_minute" in SETTINGS


def switched_on() -> str:
    """The reference with every setting that is commented out switched on, as its head tells to do it."""
    return re.sub(r"^(\s*)# (?!yaml-language-server)", r"\1", REFERENCE.read_text(), flags=re.MULTILINE)


def keys(value: Any, schema_path: str = "") -> Iterator[str]:
    """The settings that a file says, with what the user named as `<name>`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            named = f"{schema_path}.{key}".lstrip(".")
            path = named if named in SETTINGS else f"{schema_path}.<name>"
            yield path
            yield from keys(inner, path)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, f"{schema_path}[]")


def test_every_setting_stands_in_the_reference() -> None:
    said = set(keys(yaml.safe_load(switched_on().replace("route: on", "route: 'on'"))))
    tenants_own = {path for path in SETTINGS if path.startswith("policy.tenants.<name>.limits.")}  # as policy.limits
    assert SETTINGS.keys() - said - tenants_own == set()


def test_the_reference_with_all_its_examples_switched_on_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    head = re.compile(r"^    quality:.*\n(?:      .*\n)+", flags=re.MULTILINE)  # one would have to be there
    Path("all.yaml").write_text(head.sub("", switched_on()))
    settings = load_settings(Path("all.yaml"))
    assert list(settings.policy.experts) == ["fast", "strong", "local", "claude", "nova", "quoting", "encoder"]
    assert [str(warning) for warning in settings.warnings if "second_key" not in warning.message] == []


def test_the_reference_names_every_category() -> None:
    assert all(category in REFERENCE.read_text() for category in CATEGORIES)


def test_the_categories_are_those_that_the_shipped_classifier_knows() -> None:
    from conclave.router.classify import Router  # noqa: PLC0415  the artifact is heavy

    assert sorted(Router.load().categories) == sorted(CATEGORIES)


def test_the_schema_for_editors_is_up_to_date() -> None:
    """python -m conclave.gateway.policy.schema > config/schema.json"""
    assert (ROOT / "config" / "schema.json").read_text() == schema.text()


@pytest.mark.parametrize("file", [REFERENCE, *RECIPES], ids=lambda file: file.stem)
def test_editors_find_the_schema_of_each_file(file: Path) -> None:
    named = re.search(r"^# yaml-language-server: \$schema=(\S+)$", file.read_text(), flags=re.MULTILINE)
    assert named is not None
    assert (file.parent / named[1]).resolve() == ROOT / "config" / "schema.json"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_each_recipe_loads(recipe: Path) -> None:
    assert len(load_settings(recipe).policy.experts) > 1


def shown(field: FieldInfo) -> str:
    """A default as the documentation writes it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel | dict):
        return "below"
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
        return "below"
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("path", SETTINGS)
def test_every_setting_stands_in_the_docs_with_its_default(path: str) -> None:
    if path.startswith("policy.tenants.<name>.limits."):
        path = "policy.tenants.<name>.limits"
    row = re.search(rf"^\| `{re.escape(path)}` \| `([^`]*)` \| .{{10,}} \|$", DOCS.read_text(), flags=re.MULTILINE)
    assert row is not None
    assert row[1] == shown(SETTINGS[path])


EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOCS.read_text() if DOCS.exists() else "", flags=re.DOTALL)


CA = """-----BEGIN CERTIFICATE-----
MIIBKDCBzqADAgECAgEBMAoGCCqGSM49BAMCMBIxEDAOBgNVBAMMB1Rlc3QgQ0Ew
IBcNMjYwMTAxMDAwMDAwWhgPMjA1NjAxMDEwMDAwMDBaMBIxEDAOBgNVBAMMB1Rl
c3QgQ0EwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASEaLFIfwSxL8Or0ldCOINE
ff5OhIYRUPMRbUkOLrbZTVk6pXH39olOggnxPQGW7jU7k71TIKta9JHlMYEY3g6W
oxMwETAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQCp4C7IBwJv
hiCRTkwaeODEl7BPKAlgttumVXFM9pqnUgIhAJuA0Iz5hX0LIllvaSHr2tueU4Og
Jp+4T2cetfVEsl4U
-----END CERTIFICATE-----
"""


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.split("\n")[0].strip("# "))
def test_each_example_in_the_docs_loads(text: str) -> None:
    Path("docs").mkdir()  # one example quotes from it
    Path("company-ca.pem").write_text(CA)  # and one trusts it
    Path("example.yaml").write_text(text)
    load_settings(Path("example.yaml"))


def test_the_docs_have_the_examples_that_newcomers_ask_for() -> None:
    assert len(EXAMPLES) >= 8


PLACES = """
server:
  egress: {{allow: [{allow}]}}
policy:
  experts:
    inside:
      model: m
      base_url: http://10.0.0.5:8000/v1
      deployments:
        - {{}}
        - {{base_url: http://169.254.169.254/v1}}
"""


def test_an_expert_at_a_private_address_is_refused_with_its_line() -> None:
    Path("c.yaml").write_text(PLACES.format(allow=""))
    with pytest.raises(ConfigError) as wrong:
        load_settings(Path("c.yaml"))
    places = [(problem.where, problem.key) for problem in wrong.value.problems]
    assert places == [
        ("c.yaml:8", "policy.experts.inside.base_url"),
        ("c.yaml:11", "policy.experts.inside.deployments[1].base_url"),
    ]
    Path("c.yaml").write_text(PLACES.format(allow="10.0.0.0/8, 169.254.169.254"))
    load_settings(Path("c.yaml"))


def test_a_server_that_the_environment_names_needs_no_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://10.0.0.7:11434")
    monkeypatch.setenv("OLLAMA_MODEL", "llama3.2")
    settings = load_settings()
    assert settings.trusted_hosts == ("10.0.0.7",)
    assert settings.server.egress.open(settings.trusted_hosts).allowed.networks


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: None, "own.pem cannot be read: No such file or directory"),
        (lambda file: file.write_text("no certificate"), "own.pem holds no CA certificate in PEM form"),
        (lambda file: file.write_bytes(b""), "own.pem holds no CA certificate in PEM form"),
        (lambda file: file.mkdir(), "own.pem cannot be read: Is a directory"),
    ],
    ids=["missing", "text", "empty", "folder"],
)
def test_a_ca_file_that_is_none_is_named_with_its_line(make: Callable[[Path], object], words: str) -> None:
    make(Path("own.pem"))
    Path("c.yaml").write_text("server:\n  egress:\n    ca_file: own.pem\n")
    with pytest.raises(ConfigError) as wrong:
        load_settings(Path("c.yaml"))
    assert str(wrong.value) == f"c.yaml:3: server.egress.ca_file: {words}"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{allow: ['http://vllm']}", "host name"),
        ("{allow: ['*']}", "host name"),
        ("{no_proxy: [10.0.0.0/99]}", "host name"),
        ("{proxy: 'socks5://user:hunter2@proxy'}", "http:// URL"),
        ("{proxy: 'http://'}", "http:// URL"),
    ],
)
def test_a_wrong_egress_is_said_without_showing_a_secret(said: str, words: str) -> None:
    Path("c.yaml").write_text(f"server: {{egress: {said}}}")
    with pytest.raises(ConfigError, match=words) as wrong:
        load_settings(Path("c.yaml"))
    assert "hunter2" not in str(wrong.value)
