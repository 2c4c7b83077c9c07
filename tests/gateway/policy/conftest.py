"""A policy with experts of all sorts, rules made of it, and requests."""

from collections.abc import Callable
from typing import Any

import pytest

from conclave.gateway.call import ModelRequest
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.part import CATEGORIES
from conclave.gateway.policy.published import Version
from conclave.router.api import Classification

URL = "http://127.0.0.1:1/v1"
POLICY: dict[str, Any] = {
    "experts": {
        "fast": {"base_url": URL, "model": "tiny", "price": {"input": 1, "output": 1}, "quality": 0.3},
        "strong": {"base_url": URL, "model": "gpt-4o", "price": {"input": 5, "output": 9}, "quality": 0.9},
        "free": {"base_url": URL, "model": "own", "price": {"input": 0, "output": 0}, "capabilities": []},
        "unpriced": {"base_url": URL, "model": "own", "capabilities": ["tools"]},
    },
    "categories": {"code": ["strong", "fast"], "math": ["unpriced", "strong", "fast", "free"], "law": ["free"]},
    "default": ["fast", "strong"],
    "aliases": {"gpt-4o": "auto", "cheapest": "auto:cheap", "big": "strong"},
    "tenants": {"small": {"experts": ["free", "quoting"], "limits": {"messages": 2}}},
}


def classification(category: str = "code", *, unsure: bool = False) -> Classification:
    rest = 0.1 / (len(CATEGORIES) - 1)
    probabilities = {name: 0.9 if name == category else rest for name in CATEGORIES}
    return Classification(category=category, confidence=0.9, unsure=unsure, probabilities=probabilities)


class Classifier:
    """Says what it was told to, and remembers what it was asked."""

    def __init__(self, says: Classification) -> None:
        self.says = says
        self.asked: list[str] = []

    def __call__(self, text: str) -> Classification:
        self.asked.append(text)
        return self.says


Publish = Callable[..., Version]


@pytest.fixture
def classifier() -> Classifier:
    return Classifier(classification())


@pytest.fixture
def publish(classifier: Classifier) -> Publish:
    """A policy in force: POLICY with some parts replaced."""

    def published(**parts: Any) -> Version:
        document = complete(PolicyDocument.model_validate(POLICY | parts), {})
        return Version(document, Pool({}), classify=classifier, model_digest="m" * 64)

    return published


Ask = Callable[..., ModelRequest]


@pytest.fixture
def ask() -> Ask:
    """A request for one question."""

    def request(text: Any = "why?", *, model: str = "auto", needs: tuple[str, ...] = (), **body: Any) -> ModelRequest:
        whole = {"model": model, "messages": [{"role": "user", "content": text}]} | body
        return ModelRequest(body=whole, model=model, stream=False, include_usage=False, needs=frozenset(needs))

    return request
