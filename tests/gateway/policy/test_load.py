"""A wrong file: every problem, each with its line, its key and what was probably meant."""

from pathlib import Path

import pytest

from conclave.gateway.experts.litellm.runtime import is_installed
from conclave.gateway.policy.source import ConfigError
from conclave.gateway.settings import load_settings

EXPERT = "{base_url: http://h/v1, model: m}"


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No experts in the environment, no conclave.yaml in the folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST", "VLLM_BASE_URL", "CONCLAVE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def problems(text: str) -> list[str]:
    path = Path("c.yaml")
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("sever: {}", "c.yaml:1: sever: unknown key; did you mean 'server'?", id="half"),
        pytest.param("server:\n  prot: 1", "c.yaml:2: server.prot: unknown key; did you mean 'port'?", id="setting"),
        pytest.param(
            "server:\n  prot:\n", "c.yaml:2: server.prot: unknown key; did you mean 'port'?", id="without-value"
        ),
        pytest.param("server:\n  port: x", "c.yaml:2: server.port: should be a valid integer", id="type"),
        pytest.param("server:\n  port: 99999", "c.yaml:2: server.port: should be less than", id="range"),
        pytest.param("server: 1", "c.yaml:1: server: must be a mapping", id="half-is-a-number"),
        pytest.param("policy: [1]", "c.yaml:1: policy: must be a mapping", id="half-is-a-list"),
        pytest.param(
            "server: {port: 1, admin_port: 1}", "c.yaml:1: server: port and admin_port are both 1", id="doors"
        ),
        pytest.param(
            "policy:\n  limits:\n    mesages: 1",
            "c.yaml:3: policy.limits.mesages: unknown key; did you mean 'messages'?",
            id="nested-setting",
        ),
        pytest.param(
            "policy:\n  stages: {route: onn}",
            "c.yaml:2: policy.stages.route: 'onn' is none of the choices; did you mean 'on'?",
            id="choice",
        ),
        pytest.param(
            "policy:\n  stages: {memory: on}",
            "c.yaml:2: policy.stages.memory: unknown key; known: detect, guard, retrieve, route",
            id="no-such-stage",
        ),
        pytest.param(
            "policy:\n  categories:\n    maths: [quoting]",
            "c.yaml:3: policy.categories.maths: 'maths' is none of the choices; did you mean 'math'?",
            id="category",
        ),
        pytest.param(
            f"policy:\n  experts:\n    fast: {EXPERT}\n  categories:\n    code:\n      - quoting\n      - fats",
            "c.yaml:7: policy.categories.code[1]: unknown expert 'fats'; did you mean 'fast'?",
            id="expert-in-a-row",
        ),
        pytest.param("policy: {categories: {code: []}}", "c.yaml:1: policy.categories.code: ", id="empty-row"),
        pytest.param(
            "policy: {default: [quoting, quoting]}",
            "c.yaml:1: policy.default[1]: 'quoting' stands in this row twice",
            id="twice-in-a-row",
        ),
        pytest.param(
            "policy:\n  default: [nobody]",
            "c.yaml:2: policy.default[0]: unknown expert 'nobody'; known: encoder, quoting",
            id="expert-in-the-default-row",
        ),
        pytest.param(
            "policy: {aliases: {gpt-4o: atuo}}",
            "c.yaml:1: policy.aliases.gpt-4o: unknown model 'atuo'; did you mean 'auto'?",
            id="alias",
        ),
        pytest.param(
            "policy: {aliases: {auto: quoting}}",
            "c.yaml:1: policy.aliases.auto: 'auto' is already the name of a model",
            id="alias-hides-a-model",
        ),
        pytest.param(
            "policy: {aliases: {a: b, b: auto}}",
            "c.yaml:1: policy.aliases.a: unknown model 'b'",
            id="alias-of-an-alias",
        ),
        pytest.param(
            "policy:\n  tenants:\n    t:\n      experts: [quotign]",
            "c.yaml:4: policy.tenants.t.experts[0]: unknown expert 'quotign'; did you mean 'quoting'?",
            id="tenants-expert",
        ),
        pytest.param(
            "policy: {tenants: {t: {audit: {keep_days: 1}}}}", "unknown key; known: keep_text", id="tenants-key"
        ),
        pytest.param("policy: {experts: {a: {model: m}}}", "policy.experts.a: base_url is missing", id="no-url"),
        pytest.param(
            "policy: {experts: {a: {base_url: http://h}}}", "policy.experts.a: model is missing", id="no-model"
        ),
        pytest.param(
            "policy: {experts: {auto: {kind: quoting}}}", "'auto' is a virtual model's name", id="virtual-name"
        ),
        pytest.param("policy: {experts: {'a b': {kind: quoting}}}", "may hold up to 64 letters", id="expert-name"),
        pytest.param(
            "policy: {experts: {a: {kind: quoting, model: m}}}", "of kind quoting takes no model", id="quoting-model"
        ),
        pytest.param(
            "policy: {experts: {a: {kind: encoder, capabilities: [chat]}}}",
            "of kind encoder takes no capabilities",
            id="encoder-that-chats",
        ),
        pytest.param(
            "policy: {experts: {a: {base_url: http://h, model: m, documents: d}}}",
            "documents belongs to an expert of kind quoting",
            id="documents",
        ),
        pytest.param(
            "policy: {experts: {a: {model: m, base_url: 'https://u:p@h/v1'}}}",
            "must hold no user, password",
            id="url-key",
        ),
        *(
            pytest.param(
                f"policy: {{experts: {{a: {{model: m, base_url: '{url}'}}}}}}",
                "c.yaml:1: policy.experts.a.base_url: must be an http:// or https:// URL",
                id=name,
            )
            for name, url in {
                "no-port-number": "http://h:abc/v1",
                "port-out-of-range": "http://h:70000/v1",
                "port-zero": "http://h:0/v1",
                "open-bracket": "http://[::1/v1",
                "space-in-the-host": "http://my host/v1",
            }.items()
        ),
        pytest.param("policy: {experts: {a: {breaker: {failures: 6}}}}", "less than or equal to 5", id="breaker"),
        pytest.param(
            "policy:\n  experts:\n    a:\n      kind: quoting\n      documents: no/folder",
            "c.yaml:5: policy.experts.a.documents: no/folder is not a folder",
            id="no-folder",
        ),
        pytest.param("policy: {default: quoting}", "policy.default: must be a list, such as [a, b]", id="no-list"),
        pytest.param("policy: {tags: {team: []}}", "policy.tags.team: must hold one value at least", id="empty-tag"),
        pytest.param("policy: {limits: {deadline_s: .inf}}", "policy.limits.deadline_s: ", id="infinity"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_what_was_meant(text: str, problem: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert problem in found[0]


def test_all_problems_are_named_at_once_from_top_to_bottom() -> None:
    """A shape problem hides no wrong name, and a wrong policy hides no wrong server half."""
    found = problems(
        "server:\n  prot: 1\npolicy:\n  default: [nobody]\n  limits: {nesting: -1}\n  name: a\n  name: b\nplicy: {}\n"
    )
    assert [line.split(":")[1] for line in found] == ["2", "4", "5", "7", "8"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("policy: {experts: {a: {api_key: sk-secret}}}", id="under-a-wrong-name"),
        pytest.param("policy: {experts: {a: {api_key_env: sk-secret}}}", id="where-a-name-belongs"),
        pytest.param("policy: {experts: {a: {model: m, base_url: 'http://u:sk-secret@h'}}}", id="in-the-url"),
        pytest.param("policy: {experts: {a: {model: m, base_url: 'http://u:sk-secret'}}}", id="as-a-port"),
    ],
)
def test_a_key_in_the_file_is_refused_and_never_printed(text: str) -> None:
    found = problems(text)
    assert found
    assert "secret" not in "\n".join(found)


@pytest.mark.parametrize(
    ("expert", "warning"),
    [
        pytest.param("api_key_env: NO_SUCH_KEY", "the variable NO_SUCH_KEY is not set, or empty", id="variable"),
        pytest.param("api_key_env: EMPTY_KEY", "the variable EMPTY_KEY is not set, or empty", id="empty-variable"),
        pytest.param("api_key_file: no/such/file", "the key file no/such/file is not there", id="file"),
    ],
)
def test_a_missing_key_is_a_warning_not_a_problem(expert: str, warning: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY_KEY", "")
    Path("c.yaml").write_text(
        f"policy:\n  experts:\n    a:\n      base_url: http://h/v1\n      model: m\n      {expert}\n"
    )
    (found,) = load_settings(Path("c.yaml")).warnings
    assert str(found) == f"c.yaml:3: policy.experts.a: {warning}"


@pytest.mark.skipif(not is_installed(), reason="the extra providers is not installed")
@pytest.mark.parametrize(
    ("expert", "warnings"),
    [
        pytest.param(
            "model: antropc/m",
            [
                "c.yaml:1: policy.experts.a.model: 'antropc' is no provider that litellm lists; "
                "did you mean 'anthropic'?"
            ],
            id="mistyped",
        ),
        pytest.param(
            "model: anthropic/m, deployments: [{model: qqqqqqqq/m}]",
            ["c.yaml:1: policy.experts.a.deployments[0].model: 'qqqqqqqq' is no provider that litellm lists"],
            id="nothing-like-it",
        ),
        pytest.param("model: bedrock/m", [], id="known"),
    ],
)
def test_a_provider_that_litellm_does_not_list_is_a_warning(expert: str, warnings: list[str]) -> None:
    Path("c.yaml").write_text(f"policy: {{experts: {{a: {{kind: litellm, {expert}}}}}}}")
    assert [str(warning) for warning in load_settings(Path("c.yaml")).warnings] == warnings


@pytest.mark.parametrize(
    ("can", "cascade", "warnings"),
    [
        ("tools", "weak: a", ["each answer of 'a' is shown unjudged: its capabilities lack logprobs"]),
        (
            "tools",
            "weak: a, evidence: [agreement, label], samples: 3, without_evidence: escalate",
            ["each answer of 'a' is thrown away unjudged: its capabilities lack logprobs and n"],
        ),
        ("n", "weak: a, evidence: [agreement, label], samples: 3", []),
        ("logprobs", "weak: a", []),
        ("tools", "below: 0.5", []),
    ],
    ids=["accept", "escalate", "one-of-two", "can", "whoever-is-first"],
)
def test_a_weak_expert_that_cannot_be_judged_is_a_warning(can: str, cascade: str, warnings: list[str]) -> None:
    expert = f"{{base_url: http://h/v1, model: m, capabilities: [{can}]}}"
    Path("c.yaml").write_text(f"policy: {{experts: {{a: {expert}, b: {expert}}}, routing: {{cascade: {{{cascade}}}}}}}")
    found = load_settings(Path("c.yaml")).warnings
    assert [(one.key, one.message) for one in found] == [("policy.routing.cascade.weak", words) for words in warnings]


def test_a_key_that_is_there_is_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "k")
    Path("key").write_text("k")
    Path("c.yaml").write_text(
        "policy: {experts: {a: {base_url: http://h/v1, model: m, api_key_env: SOME_KEY},"
        " b: {base_url: http://h/v1, model: m, api_key_file: key, api_key_env: NO_SUCH_KEY}}}"
    )
    assert load_settings(Path("c.yaml")).warnings == ()


def test_deployments_take_from_their_expert_what_they_do_not_say() -> None:
    Path("c.yaml").write_text(
        "policy: {experts: {a: {base_url: http://h/v1, model: m, api_key_file: key,"
        " deployments: [{weight: 3}, {base_url: http://i/v1/, api_key_env: OTHER}, {model: n}]}}}"
    )
    places = load_settings(Path("c.yaml")).policy.experts["a"].resolved_deployments()
    assert [(p.base_url, p.model, str(p.api_key_file), p.api_key_env, p.weight) for p in places] == [
        ("http://h/v1", "m", "key", None, 3),
        ("http://i/v1", "m", "None", "OTHER", 1),
        ("http://h/v1", "n", "key", None, 1),
    ]


@pytest.mark.parametrize(
    ("where", "key"),
    [("", "policy.retrieval"), ("  tenants: {t: {", "policy.tenants.t.retrieval")],
    ids=["for all", "one tenant"],
)
def test_the_robust_expert_is_one_that_there_is(where: str, key: str) -> None:
    part = "retrieval: {closed_book: {robust: stong}}"
    closed = f"{where}{part}}}}}" if where else f"  {part}"
    found = problems(f"policy:\n  experts: {{strong: {EXPERT}}}\n{closed}")
    assert found == [f"c.yaml:3: {key}.closed_book.robust: unknown expert 'stong'; did you mean 'strong'?"]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("evidence: [agreement]", "agreement compares samples"),
        ("samples: 3", "add agreement to evidence"),
        ("curve: [[0.5, 0.9], [0.4, 1.0]]", "the points of curve must rise"),
        ("below: 2", "less than or equal to 1"),
        ("abstain: maybe", "must be true or false"),
        ("robst: a", "did you mean 'robust'?"),
    ],
)
def test_a_hearing_that_makes_no_sense_is_named(said: str, problem: str) -> None:
    [found] = problems(f"policy:\n  retrieval: {{closed_book: {{{said}}}}}")
    assert "policy.retrieval.closed_book" in found
    assert problem in found
