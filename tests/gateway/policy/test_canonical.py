"""The bytes that a document is kept as: the same for the same policy, and the whole policy again when they are read."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conclave.gateway.policy.canonical import UnreadableError, canonical, digest_of, document_of, plain_of
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.part import CATEGORIES

EXPERT = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
NAMES = ("a", "b", "c")

documents = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["default", "müde", "x y"]),
        "experts": st.dictionaries(st.sampled_from(NAMES), st.just(EXPERT), min_size=1, max_size=3),
        "limits": st.dictionaries(st.sampled_from(["messages", "nesting"]), st.integers(4, 500)),
        "aliases": st.dictionaries(st.sampled_from(["gpt-4o", "on", "1e3"]), st.just("auto")),
        "tenants": st.dictionaries(
            st.sampled_from(["acme", "true"]),
            st.fixed_dictionaries(
                {},
                optional={
                    "limits": st.sampled_from([{}, {"requests_per_minute": None}, {"requests_per_minute": 7}]),
                    "audit": st.sampled_from([{}, {"keep_text": False}]),
                },
            ),
        ),
    }
)


@given(documents)
def test_what_is_kept_is_read_back_as_the_same_policy(said: dict[str, Any]) -> None:
    document = complete(PolicyDocument.model_validate(said), {})
    again = document_of(canonical(document))
    assert canonical(again) == canonical(document)
    assert digest_of(again) == digest_of(document)
    assert list(again.experts) == list(document.experts)
    assert {name: tenant.limits.model_fields_set for name, tenant in again.tenants.items()} == {
        name: tenant.limits.model_fields_set for name, tenant in document.tenants.items()
    }


def kept(**parts: Any) -> dict[str, Any]:
    raw = canonical(complete(PolicyDocument.model_validate({"experts": {"a": EXPERT}} | parts), {}))
    plain: dict[str, Any] = msgspec.json.decode(raw)
    return plain


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"experts": 7}, "no policy document", id="experts-of-another-shape"),
        pytest.param({"default": ["gone"]}, r"default\[0\]: unknown expert 'gone'", id="an-expert-that-is-not-there"),
        pytest.param({"aliases": {"x": "nobody"}}, r"aliases\.x: unknown model", id="an-alias-of-nothing"),
        pytest.param({"moods": "good"}, "does not know: moods", id="a-setting-of-a-newer-conclave"),
        pytest.param({"limits": {"nesting": "deep"}}, r"does not know: limits\.nesting", id="a-wrong-type"),
    ],
)
def test_what_cannot_be_used_says_why(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UnreadableError, match=says):
        document_of(msgspec.json.encode(kept() | change))


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"{}", b'"x"', b"\xff", b'{"experts": [["a"]]}'])
def test_bytes_that_are_no_document_are_told(raw: bytes) -> None:
    with pytest.raises(UnreadableError):
        plain_of(raw)


def test_every_category_survives() -> None:
    document = complete(
        PolicyDocument.model_validate({"experts": {"a": EXPERT}, "categories": {name: ["a"] for name in CATEGORIES}}),
        {},
    )
    assert set(document_of(canonical(document)).categories) == set(CATEGORIES)
