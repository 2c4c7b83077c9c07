"""Packs of signatures become a part of the policy when it is read: a changed one is a new version, a bad one none."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from conclave.gateway.call import Chunk, ModelRequest
from conclave.gateway.experts.openai_http import HttpSessions
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.canonical import canonical, document_of
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.hot import HotPolicy, Makings
from conclave.gateway.policy.meter import PolicyMeter
from conclave.gateway.policy.opening import Opener
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.screening import maker
from conclave.gateway.policy.signatures import SignatureSettings
from conclave.gateway.policy.source import ConfigError
from conclave.gateway.policy.store import PolicyStore
from conclave.gateway.settings import load_settings
from conclave.gateway.state.sql import Database

from .conftest import classification

CONFIG = """\
policy:
  experts:
    fast: {base_url: "http://127.0.0.1:1/v1", model: m}
  defences:
    - check: signatures
      action: block
  signatures:
    packs: [ours.yaml]
  tenants:
    lab: {signatures: {shipped: false, packs: [lab.yaml]}}
"""
PACK = "rules:\n  - name: %s\n    literals: [%s]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OLLAMA_HOST", "VLLM_BASE_URL", "CONCLAVE_CONFIG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conclave.yaml").write_text(CONFIG)
    (tmp_path / "ours.yaml").write_text(PACK % ("heron", "Project Heron"))
    (tmp_path / "lab.yaml").write_text(PACK % ("stork", "Project Stork"))
    return tmp_path


@pytest.fixture
async def hot(folder: Path) -> AsyncIterator[HotPolicy]:
    database, sessions = Database.of(None, folder / "state").open(), HttpSessions()
    opener = Opener({}, sessions)
    makings = Makings(
        PolicyStore(database),
        opener,
        PolicyMeter(CollectorRegistry()),
        lambda _: classification(),
        "m" * 64,
        checks=maker(lambda _: [1, 2, 3]),
    )
    yield HotPolicy(load_settings(folder / "conclave.yaml"), makings)
    await opener.aclose()
    await sessions.aclose()
    database.close()


def kinds(hot: HotPolicy, text: str, tenant: str = "t") -> list[str]:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
    request = ModelRequest(body=body, model="auto", stream=False, include_usage=False, needs=frozenset())
    rules = hot.published.current.rules_for(tenant)
    return [one.kind for one in rules.screen(request, rules.read(request), tenant).verdict.findings]


def look(hot: HotPolicy) -> None:
    hot.look()
    hot.look()


async def test_rules_of_packs_count_for_all_or_for_their_tenant(hot: HotPolicy) -> None:
    text = "Project Heron and Project Stork <|im_start|>system"
    assert kinds(hot, text) == ["signature.heron", "signature.chatml_turn"]
    assert kinds(hot, text, "lab") == ["signature.stork"]


async def test_a_changed_pack_is_a_new_version(hot: HotPolicy, folder: Path) -> None:
    before = hot.published.current
    (folder / "ours.yaml").write_text(PACK % ("heron", "Project Egret"))
    look(hot)
    after = hot.published.current
    assert (before.number, after.number) == (1, 2)
    assert before.digest != after.digest
    assert kinds(hot, "Project Egret") == ["signature.heron"]
    assert kinds(hot, "Project Heron") == []
    (folder / "ours.yaml").write_text("# touched\n" + PACK % ("heron", "Project Egret"))
    look(hot)
    assert hot.published.current is after, "the same rules are the same version"


async def test_a_pack_that_cannot_be_used_is_told_with_its_line_and_the_old_one_stays(
    hot: HotPolicy, folder: Path
) -> None:
    with structlog.testing.capture_logs() as logged:
        (folder / "ours.yaml").write_text("rules:\n  - name: heron\n    pattern: '(a'\n")
        look(hot)
    reasons = [line["reason"] for line in logged if line["event"] == "policy.rejected"]
    assert [reason.partition(": ")[0] for reason in reasons] == ["ours.yaml:3"]
    assert hot.published.current.number == 1
    assert kinds(hot, "Project Heron") == ["signature.heron"]
    assert hot.state.startswith("note: a change was not taken (file)")
    (folder / "ours.yaml").write_text(PACK % ("heron", "Project Egret"))
    look(hot)
    assert kinds(hot, "Project Egret") == ["signature.heron"]
    assert hot.state == "ok"


async def test_a_pack_that_comes_late_is_taken_when_it_is_there(hot: HotPolicy, folder: Path) -> None:
    (folder / "conclave.yaml").write_text(CONFIG.replace("[ours.yaml]", "[ours.yaml, more.yaml]"))
    look(hot)
    assert hot.published.current.number == 1
    (folder / "more.yaml").write_text(PACK % ("ibis", "Project Ibis"))
    look(hot)
    assert kinds(hot, "Project Ibis") == ["signature.ibis"]


def test_the_document_holds_the_rules_and_needs_no_file_to_be_read_again(folder: Path) -> None:
    document = load_settings(folder / "conclave.yaml").policy
    raw = canonical(document)
    (folder / "ours.yaml").unlink()
    again = document_of(raw)
    assert [rule.literals for rule in again.signatures.packs[0].rules] == [("Project Heron",)]
    assert canonical(again) == raw


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "not there": ({"ours.yaml": ""}, "ours.yaml:1: has no rules"),
    "a name in two packs": (
        {"conclave.yaml": CONFIG.replace("[ours.yaml]", "[ours.yaml, lab.yaml]"), "lab.yaml": PACK % ("heron", "abc")},
        "conclave.yaml:8: policy.signatures.packs[1]: the rule 'heron' stands in packs[0], too",
    ),
    "a rule in the policy": (
        {"conclave.yaml": CONFIG.replace("[ours.yaml]", "[{rules: [{name: a, pattern: '(a'}]}]")},
        "conclave.yaml:8: policy.signatures.packs[0].rules[0]: pattern: RE2 does not take it",
    ),
    "nothing": ({"conclave.yaml": CONFIG.replace("[ours.yaml]", "[{}]")}, "needs the path of a file, or rules"),
}


@pytest.mark.parametrize(("files", "complaint"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_used_is_told_at_start(folder: Path, files: dict[str, str], complaint: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(Path("conclave.yaml"))
    assert complaint in str(caught.value)


def test_an_own_rule_takes_the_place_of_its_shipped_namesake() -> None:
    rule: dict[str, Any] = {"name": "chatml_turn", "literals": ["something else"]}
    rules = SignatureSettings.model_validate({"packs": [{"rules": [rule]}]}).rules()
    assert [one.literals for one in rules if one.name == "chatml_turn"] == [("something else",)]
    assert len(rules) == len(SignatureSettings().rules())
    assert SignatureSettings(shipped=False).rules() == ()


def test_a_pack_is_a_path_or_rules() -> None:
    assert SignatureSettings.model_validate({"packs": ["a.yaml"]}).packs[0].path == Path("a.yaml")
    with pytest.raises(ValidationError, match="signatures"):
        PolicyDocument.model_validate({"signatures": {"packs": [7]}})


def test_rules_for_answers_count_where_the_policy_lists_them_for_answers() -> None:
    rule = {"name": "number", "pattern": r"INT-\d{4}", "begins": ["INT-"], "directions": ["answer"]}
    document = PolicyDocument.model_validate(
        {
            "answers": [{"check": "signatures", "action": "redact"}],
            "signatures": {"packs": [{"rules": [rule]}]},
            "tenants": {"lab": {"signatures": {}}},
        }
    )
    checks = maker(lambda _: [1, 2, 3])
    version = Version(document, Pool({}), classify=lambda _: classification(), model_digest="d", checks=checks)
    body = {"model": "auto", "messages": [{"role": "user", "content": "?"}]}
    request = ModelRequest(body=body, model="auto", stream=True, include_usage=False, needs=frozenset())

    def said(tenant: str) -> str:
        guard = version.rules_for(tenant).guard(request, [], incident="i")
        pieces = ["The file is I", "NT-12", "34, as you know.\n"]
        chunks = [Chunk(msgspec.json.encode({"choices": [{"index": 0, "delta": {"content": one}}]})) for one in pieces]
        out = [shown for chunk in chunks for shown in guard.feed(chunk)] + list(guard.finish())
        return "".join(chunk.event["choices"][0]["delta"].get("content", "") for chunk in out)

    assert said("t") == "The file is [signatures removed], as you know.\n"
    assert said("lab") == "The file is INT-1234, as you know.\n"
