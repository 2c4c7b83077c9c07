"""litellm's table, read without litellm: prices per million, windows, and whose model a name is."""

import math
import subprocess
import sys

import pytest

from conclave.gateway.experts import price_table
from conclave.gateway.experts.catalog import Facts, facts_of, shipped
from conclave.gateway.experts.providers import PROVIDERS, Provider

from .provider_wire import needs_litellm

pytestmark = needs_litellm
UNLISTED = {"openrouter"}  # it routes; each model behind it has a price of its own


@pytest.mark.parametrize(
    ("model", "base_url", "kind", "price", "can"),
    [
        pytest.param("anthropic/claude-haiku-4-5", None, "litellm", (1.0, 5.0), {"tools", "images"}, id="anthropic"),
        pytest.param("bedrock/amazon.nova-lite-v1:0", None, "litellm", (0.06, 0.24), {"tools"}, id="bedrock"),
        pytest.param("gemini/gemini-embedding-001", None, "litellm", (0.15, 0.0), {"embeddings"}, id="vectors"),
        pytest.param(
            "openai/gpt-oss-120b", "https://api.groq.com/openai/v1", "openai", (0.15, 0.6), {"json_mode"}, id="groq"
        ),
        pytest.param("gpt-4.1", "https://api.openai.com/v1", "openai", (2.0, 8.0), {"logprobs", "n"}, id="openai"),
        pytest.param("gpt-4.1-2025-04-14", "https://api.openai.com/v1", "openai", (2.0, 8.0), {"n"}, id="snapshot"),
        pytest.param("openai/gpt-oss-120b", "http://gpu:8000/v1", "openai", (None, None), {"n"}, id="ones-own-server"),
        pytest.param("nowhere/model", None, "litellm", (None, None), {"tools"}, id="unknown-provider"),
        pytest.param("anthropic/gpt-4.1", None, "litellm", (None, None), {"tools"}, id="another-providers-model"),
    ],
)
def test_a_price_is_of_the_model_where_it_is_served(
    *, model: str, base_url: str | None, kind: str, price: tuple[float | None, float | None], can: set[str]
) -> None:
    known = facts_of(model, base_url, kind=kind)
    assert (known.input, known.output) == price
    assert can <= known.capabilities


def test_anthropic_has_no_mode_for_mere_json_and_one_answer_only() -> None:
    """What a provider cannot do must not be promised: the request goes to an expert that can, or is refused."""
    assert not facts_of("anthropic/claude-haiku-4-5", kind="litellm").capabilities & {"json_mode", "n", "logprobs"}


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_the_model_that_is_asked_by_default_is_listed_and_paid_by_the_token(provider: Provider) -> None:
    entry = price_table.entry(provider.table + provider.model)
    if provider.name in UNLISTED:
        assert entry is None
        return
    assert entry is not None
    assert entry.mode == "chat"
    assert entry.input is not None
    assert entry.output is not None
    assert 0 < entry.input <= entry.output < math.inf
    assert entry.window_tokens


@pytest.mark.parametrize("name", sorted(name for name in shipped().models if price_table.entry(name) is not None))
def test_the_shipped_prices_are_those_of_the_table(name: str) -> None:
    facts, entry = shipped().models[name], price_table.entry(name)
    assert entry is not None
    assert (facts.input, facts.output) == (entry.input, entry.output)


def test_every_line_of_the_table_can_be_read() -> None:
    for name in price_table._table():
        entry = price_table.entry(name)
        assert entry is not None
        assert all(price is None or price >= 0 for price in (entry.input, entry.output)), name


def test_a_lookup_imports_no_litellm() -> None:
    code = (
        "import sys; from conclave.gateway.experts.catalog import facts_of; "
        "print(facts_of('anthropic/claude-haiku-4-5', kind='litellm').input, 'litellm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1.0", "False"]


def test_what_nobody_knows_has_no_price() -> None:
    assert facts_of("my-model", "https://api.mistral.ai/v1") == Facts()
