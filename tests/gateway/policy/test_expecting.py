"""A quality head in a policy: opened only if it is the one that is pinned, asked only where it counts, and replayed."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conclave.gateway.access.scope import Scope
from conclave.gateway.call import ModelRequest
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import PolicyDocument, Price
from conclave.gateway.policy.expecting import HeadError, opened
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.recorded import as_row, asked_of
from conclave.gateway.policy.scored import Quality
from conclave.gateway.policy.source import ConfigError
from conclave.gateway.settings import load_settings
from conclave.router.api import Classification
from conclave.router.quality import QUALITY_FILES, quality_digest

Ask = Callable[..., ModelRequest]
URL = "http://127.0.0.1:1/v1"
PINNED = {"folder": "nowhere", "sha256": "0" * 64, "blend": 0.5}


def document(**routing: Any) -> PolicyDocument:
    price = {"input": 1, "output": 1}
    experts = {name: {"base_url": URL, "model": "m", "price": price} for name in ("usual", "other")}
    row = {"usual": {"score": 0.8}, "other": {"score": 0.7}}
    scores = {"scores": {"code": row, "law": row}, "pins": {"law": "usual"}, "quality": PINNED}
    return complete(PolicyDocument.model_validate({"experts": experts, "routing": scores | routing}), {})


class Head:
    """Expects what it was told to, and remembers what it was asked."""

    def __init__(self, says: Mapping[str, float]) -> None:
        self.says = says
        self.asked: list[tuple[str, str]] = []

    def __call__(self, text: str, found: Classification) -> Mapping[str, float]:
        self.asked.append((text, found.category))
        return self.says


@pytest.mark.parametrize(
    ("says", "experts", "reason", "expected"),
    [
        pytest.param({"usual": 0.8, "other": 0.8}, ["usual", "other"], "category", [0.8, 0.75], id="agrees"),
        pytest.param({"usual": 0.2, "other": 0.8}, ["other", "usual"], "quality", [0.5, 0.75], id="knows-better"),
        pytest.param({"gone": 1.0}, ["usual", "other"], "category", [0.8, 0.7], id="knows-others"),
    ],
)
def test_a_head_is_blended_with_the_table_and_the_row_says_so(  # noqa: PLR0913  the row of a table, and the fixtures
    ask: Ask, classifier: Any, *, says: dict[str, float], experts: list[str], reason: str, expected: list[float]
) -> None:
    head = Head(says)
    version = Version(document(), Pool({}), classify=classifier, model_digest="m", heads=lambda _: head)
    rules, request = version.rules_for("any"), ask("Sort this list")
    asked = rules.asked(request, rules.read(request), Scope())
    decision = rules.choose(asked)
    assert ([step.expert for step in decision.steps], decision.reason) == (experts, reason)
    assert [decision.expected[name] for name in ("usual", "other")] == pytest.approx(expected)
    assert head.asked == [("Sort this list", "code")]
    row = {"decision": as_row(decision, asked), "model": "auto", "operation": "chat"}
    without = Version(document(), Pool({}), classify=classifier, model_digest="m").rules_for("any")
    assert without.choose(asked_of(row)) == decision  # replayed from the row alone: no head, no text


@pytest.mark.parametrize(("category", "unsure"), [("law", False), ("code", True), ("medicine", False)])
def test_a_head_is_not_asked_where_it_cannot_count(ask: Ask, classifier: Any, category: str, unsure: bool) -> None:
    """A pin, an unsure question and a category without a row of its own."""
    classifier.says = replace(classifier.says, category=category, unsure=unsure)
    head = Head({"usual": 0.0, "other": 1.0})
    version = Version(document(), Pool({}), classify=classifier, model_digest="m", heads=lambda _: head)
    rules, request = version.rules_for("any"), ask("Is this legal?")
    decision = rules.decide(request, rules.read(request), Scope())
    assert (decision.steps[0].expert, head.asked) == ("usual", [])


def test_a_dearer_expert_must_be_expected_to_be_worth_it(ask: Ask, classifier: Any) -> None:
    said = document(answer_worth_usd=0.01)
    dearer = said.experts["other"].model_copy(update={"price": Price(input=1.0, output=13.0)})
    experts = {**said.experts, "other": dearer}
    version = Version(
        said.model_copy(update={"experts": experts}),
        Pool({}),
        classify=classifier,
        model_digest="m",
        heads=lambda _: Head({"usual": 0.6, "other": 0.9}),
    )
    rules, request = version.rules_for("any"), ask()
    decision = rules.decide(request, rules.read(request), Scope())
    assert decision.expected["other"] > decision.expected["usual"]
    assert decision.steps[0].expert == "usual"  # 0.003 USD more a call is 0.3 of an answer


def test_a_head_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=r"the quality head in \S+ cannot be read: No such file"):
        opened(Quality(folder=tmp_path, sha256="0" * 64))


def a_head(folder: Path, tensors: bytes = b"{}", about: bytes = b"{}") -> Path:
    for name, raw in zip(QUALITY_FILES, (tensors, about), strict=True):
        (folder / name).write_bytes(raw)
    return folder


def test_a_head_with_another_digest_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=rf"has the sha256 {quality_digest(a_head(tmp_path))}, not 000"):
        opened(Quality(folder=tmp_path, sha256="0" * 64))


def test_a_head_that_is_none_is_said_though_its_digest_is_right(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="cannot be used"):
        opened(Quality(folder=tmp_path, sha256=quality_digest(a_head(tmp_path))))


@pytest.mark.parametrize("more", ["", ", blend: 2"])
def test_a_head_that_cannot_be_used_is_a_mistake_of_the_file_with_its_line(tmp_path: Path, more: str) -> None:
    (tmp_path / "c.yaml").write_text(f"policy:\n  routing:\n    quality: {{folder: gone, sha256: {'0' * 64}{more}}}\n")
    with pytest.raises(ConfigError, match=r"c.yaml:3: policy.routing.quality"):
        load_settings(tmp_path / "c.yaml")
