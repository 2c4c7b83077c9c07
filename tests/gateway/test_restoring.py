"""What puts a caller's own values back into an answer knows whether the answer is JSON."""

import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from conclave.gateway.call import Call, ModelRequest, Source
from conclave.gateway.policy.screening import Screened
from conclave.safety.vault import Vault
from conclave.safety.verdict import NOTHING

VALUE = 'a "quoted"\nvalue'


def call(vault: Vault | None, **body: Any) -> Call:
    made = Call("req_1", cast(Source, None), cast(Any, None), datetime.now(UTC), 0.0)
    request = ModelRequest(body=body, model="auto", stream=False, include_usage=False, needs=frozenset())
    made.heed(Screened(NOTHING, request, (), vault))
    return made


@pytest.mark.parametrize("kind", ["json_object", "json_schema"])
def test_an_answer_that_is_to_be_json_stays_json(kind: str) -> None:
    vault = Vault(b"k" * 32)
    restorer = call(vault, response_format={"type": kind}).restorer
    assert restorer is not None
    said = restorer().feed(json.dumps({"name": vault.placeholder(VALUE, label="name")}))
    assert json.loads(said) == {"name": VALUE}


@pytest.mark.parametrize("body", [{}, {"response_format": {"type": "text"}}, {"response_format": "json"}])
def test_a_free_text_has_the_value_as_it_is(body: dict[str, Any]) -> None:
    vault = Vault(b"k" * 32)
    restorer = call(vault, **body).restorer
    assert restorer is not None
    assert restorer().feed(f"say {vault.placeholder(VALUE, label='name')}") == f"say {VALUE}"


def test_without_a_value_nothing_is_put_back() -> None:
    assert call(None).restorer is None
