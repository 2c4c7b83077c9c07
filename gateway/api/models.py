"""`GET /v1/models`: the experts, the virtual models and the aliases that a caller's key reaches."""

from typing import Any

from conclave.gateway.call import Head
from conclave.gateway.pipeline import Pipeline


async def list_models(pipeline: Pipeline, head: Head) -> dict[str, Any]:
    """The OpenAI list object. Raises what admission raises."""
    grant = await pipeline.access.admit(head)
    models = pipeline.policy.rules_for(grant.tenant).models(grant.scope)
    return {
        "object": "list",
        "data": [{"id": model.id, "object": "model", "created": 0, "owned_by": model.owned_by} for model in models],
    }
