"""Splits and shadows as a file says them: laid over the policy, checked as it is, with line and path."""

from pathlib import Path
from typing import Any

import pytest

from conclave.gateway.policy.canonical import canonical, document_of
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.overlay import Overlay, overlaid, trial_digest
from conclave.gateway.policy.source import ConfigError
from conclave.gateway.settings import load_settings

HEAD = """policy:
  experts:
    a: {base_url: "http://127.0.0.1:1/v1", model: m}
    b: {base_url: "http://127.0.0.1:1/v1", model: n}
  categories: {code: [a], law: [b]}
  default: [a]
"""


def problems(routing: str) -> list[str]:
    Path("c.yaml").write_text(f"{HEAD}  routing:\n{routing}")
    with pytest.raises(ConfigError) as caught:
        load_settings(Path("c.yaml"))
    return [str(problem) for problem in caught.value.problems]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def document(**parts: Any) -> PolicyDocument:
    expert = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    whole = {"experts": {"a": expert, "b": expert}, "categories": {"code": ["a"], "law": ["b"]}, "default": ["a"]}
    return complete(PolicyDocument.model_validate(whole | parts), {})


@pytest.mark.parametrize(
    ("routing", "where", "words"),
    [
        ("    shadow: {x: {categories: {code: [c]}}}", "shadow.x.categories.code[0]", "unknown expert 'c'"),
        ("    shadow:\n      x:\n        default: [a, a]", "shadow.x.default[1]", "stands in this row twice"),
        ("    split: {name: x, share: 0.5, default: [z]}", "split.default[0]", "unknown expert 'z'"),
        ("    shadow: {x: {categories: {cod: [a]}}}", "shadow.x.categories.cod", "did you mean 'code'"),
        ("    shadow: {x: {routing: {split: null}}}", "shadow.x.routing.split", "cannot be part of a split or shadow"),
        ("    shadow: {x: {routing: {shadow: {}}}}", "shadow.x.routing.shadow", "cannot be part of a split or shadow"),
        ("    shadow: {x: {routing: {quality: null}}}", "shadow.x.routing.quality", "which sees no text"),
        ("    shadow: {x: {routing: {cascad: {}}}}", "policy.routing.shadow.x.routing.cascad", ""),
        ("    shadow: {x: {routing: {pins: {law: a}}}}", "policy.routing.shadow.x", "law has a row in categories"),
        ("    shadow: {x: {routing: {bans: {b: [law]}}}}", "policy.routing.shadow.x", "'b' is banned from law"),
        (
            "    pins: {math: a}\n    split: {name: x, share: 1, categories: {math: [b]}}",
            "policy.routing.split",
            "math has a row in categories",
        ),
        (
            "    split: {name: x, share: 1, routing: {quality: {folder: /none, sha256: %s}}}" % ("a" * 64),
            "policy.routing.split.routing.quality",
            "cannot be read",
        ),
        ("    split: {name: control, share: 0.5}", "policy.routing.split", "give this one its own"),
        ("    split: {name: x, share: 1.5}", "policy.routing.split.share", "less than or equal to 1"),
        ("    split: {share: 0.5}", "policy.routing.split.name", "is missing"),
        ("    split: {name: x, share: .nan}", "policy.routing.split.share", ""),
        ("    shadow: {'a b': {}}", "policy.routing.shadow", "letters, digits"),
        ("    shadow: {x: [a]}", "policy.routing.shadow.x", "must be a mapping"),
        ("    shadow: {x: {share: 1}}", "policy.routing.shadow.x.share", "unknown key"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(routing: str, where: str, words: str) -> None:
    found = problems(routing)
    assert any(where in problem and words in problem for problem in found), found
    assert all(problem.startswith("c.yaml:") for problem in found)


def test_a_wrong_row_is_said_with_its_own_line_and_once() -> None:
    (found,) = problems("    shadow:\n      x:\n        categories:\n          code: [a]\n          law: [c]")
    assert found.startswith("c.yaml:12: policy.routing.shadow.x.categories.law[0]: unknown expert 'c'")


def test_a_wrong_key_of_routing_is_said_with_its_own_line() -> None:
    above = "    shadow:\n      x:\n        routing:\n          pins: {}\n"
    routing = f"{above}          scores:\n            code: {{a: {{score: 7}}}}"
    (found,) = problems(routing)
    assert found.startswith("c.yaml:13: policy.routing.shadow.x.routing.scores.code.a.score: should be less than")


def test_what_is_not_said_stays_as_it_is() -> None:
    base = document(routing={"shadow": {"x": {"categories": {"code": ["b"]}}}, "conversation": {"handoff": 0.5}})
    laid = overlaid(base, base.routing.shadow["x"])
    assert laid.categories == {"code": ("b",), "law": ("b",)}
    assert (laid.default, laid.routing.conversation, laid.experts) == (
        base.default,
        base.routing.conversation,
        base.experts,
    )
    assert (laid.routing.shadow, laid.routing.split) == ({}, None)


def test_an_overlay_of_routing_replaces_its_keys() -> None:
    base = document(routing={"conversation": {"handoff": 0.5, "turns": 1}})
    laid = overlaid(base, Overlay.model_validate({"routing": {"conversation": {"turns": 0}}}))
    assert (laid.routing.conversation.turns, laid.routing.conversation.handoff) != (1, 0.5)
    assert laid.routing.conversation.turns == 0


def test_what_is_kept_in_the_table_of_versions_is_read_back_the_same() -> None:
    routing = {"split": {"name": "x", "share": 0.25, "routing": {"conversation": {"turns": 0}}}, "shadow": {"y": {}}}
    base = document(routing=routing)
    assert document_of(canonical(base)) == base


def test_a_trial_is_another_once_either_side_changes() -> None:
    shadow = Overlay.model_validate({"default": ["b"]})
    base = document()
    same = trial_digest(base, shadow)
    assert trial_digest(document(limits={"messages": 3}, routing={"shadow": {"z": {}}}), shadow) == same
    others = [
        trial_digest(base, Overlay.model_validate({"default": ["a"]})),
        trial_digest(document(default=["b"]), shadow),
        trial_digest(document(categories={"code": ["b"]}), shadow),
        trial_digest(document(stages={"route": "observe"}), shadow),
    ]
    assert len({same, *others}) == 5
