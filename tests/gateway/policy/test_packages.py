"""What a policy says of packages in use: in the document, from lockfiles, by tenant, and in the answers that follow."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from conclave.gateway.call import Chunk
from conclave.gateway.errors import Blocked
from conclave.gateway.guard import Guard, NoGuard
from conclave.gateway.policy.answers import ANSWERS, compiled
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.packages import LockFiles, PackageSettings
from conclave.safety.output.api import Excerpt
from conclave.safety.output.checks import make
from conclave.safety.output.packages.ecosystems import Ecosystem

STRANGE = "acme-quantum-telemetry"


def where(_: object) -> str:
    return "conclave.yaml:1"


def document(**packages: Any) -> PolicyDocument:
    return PolicyDocument.model_validate({"packages": packages})


def kinds(settings: PackageSettings, text: str, check: str = "packages") -> list[str]:
    return [one.kind for one in settings.check(check).inspect(Excerpt(text, code=True, language="bash"))]


def test_known_malicious_names_are_stopped_unless_the_policy_says_otherwise_and_others_told() -> None:
    (packages,) = (one for one in ANSWERS if one.check == "packages")
    assert (packages.action, packages.from_severity) == ("block", "high")
    rest = [one for one in ANSWERS if one is not packages]
    assert {(one.action, one.from_severity) for one in rest} == {("annotate", "low")}


def spell(guard: Guard | NoGuard, text: str, sent: list[Chunk]) -> None:
    """Letter by letter, each with its probability."""
    for letter in text:
        logprobs = {"content": [{"token": letter, "logprob": -0.5, "bytes": [ord(letter)], "top_logprobs": []}]}
        choice = {"index": 0, "delta": {"content": letter}, "logprobs": logprobs, "finish_reason": None}
        sent += guard.feed(Chunk(json.dumps({"choices": [choice]}).encode()))
    sent += guard.finish()


@pytest.mark.parametrize("told", ["Run `pip install {}` now.", "```sh\npip install {}\n```\n", "Just npm i {}"])
def test_by_default_no_byte_of_a_known_malicious_name_is_sent(told: str) -> None:
    guarding = compiled(ANSWERS, make, canaries=[], observe=False)
    guard = guarding.guard([], incident="i", stream=True)
    sent: list[Chunk] = []
    with pytest.raises(Blocked):
        spell(guard, told.format("networkx" if "npm" in told else "zorosnitro"), sent)
    choices = [one.event["choices"][0] for one in sent]
    shown = "".join(choice["delta"]["content"] for choice in choices)
    assert told[: told.index("{}")].startswith(shown)
    assert [entry["token"] for choice in choices for entry in choice["logprobs"]["content"]] == [*shown]


def test_without_settings_a_strange_name_is_unknown() -> None:
    assert kinds(PackageSettings(), f"pip install {STRANGE}") == ["package.unknown"]


@pytest.mark.parametrize(
    "allow",
    [{"pypi": ["Acme_Quantum.Telemetry"]}, {"pypi": ["acme-*"]}],
    ids=["by name, spelt otherwise", "by a star"],
)
def test_what_is_allowed_is_not_flagged(allow: Mapping[str, list[str]]) -> None:
    assert kinds(document(allow=allow).packages, f"pip install {STRANGE}") == []


def test_the_names_of_a_lockfile_become_part_of_the_document(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"{STRANGE}==1.0\n")
    files = LockFiles(document(lockfiles=[str(lock)]), where)
    assert files.problems == []
    assert files.document.packages.lockfiles[0].names == {Ecosystem.PYPI: (STRANGE,)}
    assert lock in files.seen
    again = PolicyDocument.model_validate_json(files.document.model_dump_json())
    lock.unlink()
    assert kinds(again.packages, f"pip install {STRANGE}") == []


def test_a_tenant_has_its_own(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"{STRANGE}\n")
    policy = PolicyDocument.model_validate({"tenants": {"acme": {"packages": {"lockfiles": [str(lock)]}}}})
    filled = LockFiles(policy, where).document
    own = filled.tenants["acme"].packages
    assert own is not None
    assert kinds(own, f"pip install {STRANGE}") == []
    assert kinds(filled.packages, f"pip install {STRANGE}") == ["package.unknown"]


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [("poetry.lock", b"[[", "cannot be read as poetry.lock"), ("x.lock", b"", "no lockfile that is known here")],
    ids=["broken", "unknown"],
)
def test_a_file_that_is_no_lockfile_is_a_problem_with_its_place(
    tmp_path: Path, name: str, raw: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(raw)
    (problem,) = LockFiles(document(lockfiles=[str(tmp_path / name)]), where).problems
    assert (problem.key, problem.where) == ("policy.packages.lockfiles[0]", "conclave.yaml:1")
    assert words in problem.message


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    (problem,) = LockFiles(document(lockfiles=[str(tmp_path / "uv.lock")]), where).problems
    assert "cannot be read" in problem.message


@pytest.mark.parametrize(
    "packages",
    [
        {"allow": {"pipy": ["x"]}},
        {"allow": {"pypi": [""]}},
        {"allow": {"pypi": ["a b"]}},
        {"allow": {"pypi": ["x" * 300]}},
        {"lockfiles": [{}]},
        {"lockfiles": ["uv.lock"] * 65},
    ],
    ids=["ecosystem", "empty", "space", "long", "nothing", "many"],
)
def test_settings_that_make_no_sense_are_refused(packages: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError):
        document(**packages)
