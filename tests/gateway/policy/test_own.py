"""Categories of your own: rows name them, the classifier learns them, and what is wrong with them is said by line."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conclave.gateway.access.scope import Scope
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.source import ConfigError
from conclave.gateway.settings import load_settings
from conclave.router.api import Classification

from .conftest import POLICY, Ask, classification

COOKING = [
    "how do I keep my risotto from going mushy",
    "what can I make with two eggs and leftover rice",
    "how long do I roast a whole chicken per pound",
    "substitute for buttermilk in pancakes",
    "why did my sourdough not rise in the oven",
    "recipe for a quick tomato soup with basil",
    "can I freeze cooked lasagna and reheat it later",
    "best way to caramelize onions without burning them",
]
OWN = {"own_categories": {"cooking": {"examples": COOKING}}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Taught:
    """Calls everything cooking, and remembers what it was taught."""

    def __init__(self, examples: Mapping[str, Sequence[str]]) -> None:
        self.examples = examples

    def classify(self, text: str) -> Classification:
        return replace(classification(), category="cooking", probabilities={"cooking": 0.9, "code": 0.1})


def policy(**parts: Any) -> PolicyDocument:
    return complete(PolicyDocument.model_validate(POLICY | {"routing": OWN} | parts), {})


def test_a_row_may_name_an_own_category_and_serves_it(ask: Ask) -> None:
    taught: list[Taught] = []

    def teach(examples: Mapping[str, Sequence[str]]) -> Taught:
        taught.append(Taught(examples))
        return taught[-1]

    rows = {"cooking": ["free"], "code": ["strong"]}
    version = Version(
        policy(categories=rows), Pool({}), classify=lambda _: classification(), model_digest="", teach=teach
    )
    request = ask("how do I boil an egg")
    rules = version.rules_for("")
    decision = rules.decide(request, rules.read(request), Scope())
    assert taught[0].examples == {"cooking": tuple(COOKING)}
    assert (decision.row, decision.steps[0].expert) == ("cooking", "free")


def test_a_policy_without_own_categories_teaches_nobody() -> None:
    def teach(_: Mapping[str, Sequence[str]]) -> Taught:
        raise AssertionError

    Version(policy(routing={}), Pool({}), classify=lambda _: classification(), model_digest="", teach=teach)


def said(text: str) -> list[str]:
    Path("c.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(Path("c.yaml"))
    return [str(problem) for problem in caught.value.problems]


def with_own(name: str = "cooking", *, examples: Sequence[str] = COOKING, row: str = "cooking", more: str = "") -> str:
    listed = "".join(f"          - {example}\n" for example in examples)
    return (
        f"policy:\n  routing:\n    own_categories:\n      {name}:\n        examples:\n{listed}{more}"
        f"  categories:\n    {row}: [quoting]\n"
    )


def test_an_own_category_and_its_row_can_be_used() -> None:
    Path("c.yaml").write_text(with_own())
    document = load_settings(Path("c.yaml")).policy
    assert document.categories == {"cooking": ("quoting",)}
    assert document.routing.own_categories["cooking"].examples == tuple(COOKING)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            with_own(row="cookng"),
            "c.yaml:15: policy.categories.cookng: 'cookng' is none of the choices; did you mean 'cooking'?",
            id="a-row-that-is-mistyped",
        ),
        pytest.param(with_own(examples=COOKING[:7]), "c.yaml:5: policy.routing.own_categories.cooking", id="too-few"),
        pytest.param(
            with_own(examples=[COOKING[0]] * 8),
            "c.yaml:4: policy.routing.own_categories.cooking: category 'cooking' has 1 different examples; it takes 8",
            id="the-same-again",
        ),
        pytest.param(
            with_own("code", row="code"),
            "c.yaml:4: policy.routing.own_categories.code: 'code' is a shipped category; give yours another name",
            id="a-shipped-name",
        ),
        pytest.param(with_own("Home Cooking", row="code"), "begins with a letter", id="no-name"),
        pytest.param(
            with_own(more="    shadow:\n      other:\n        routing: {own_categories: {}}\n"),
            "routing.own_categories: cannot be part of a split or shadow",
            id="in-a-shadow",
        ),
    ],
)
def test_what_is_wrong_is_said(text: str, problem: str) -> None:
    found = said(text)
    assert any(problem in one for one in found), found
