"""What an expert's tokens cost: as the policy says, else as the catalog knows its model."""

from typing import Final

from conclave.gateway.experts.catalog import facts_of
from conclave.gateway.policy.document import BUILT_IN, ExpertSettings, Price

MILLION: Final = 1e6


def paid_for(expert: ExpertSettings) -> Price | None:
    """USD per million tokens; None where nobody said."""
    if expert.price is not None:
        return expert.price
    if expert.kind in BUILT_IN:
        return Price(input=0.0, output=0.0)
    place = expert.resolved_deployments()[0]
    known = facts_of(place.model or "", place.base_url, kind=expert.kind)
    if known.input is None or known.output is None:
        return None
    return Price(input=known.input, output=known.output)


def usd_for(price: Price, *, input_tokens: int, output_tokens: int) -> float:
    """What one call of that size costs."""
    return (price.input * input_tokens + price.output * output_tokens) / MILLION
