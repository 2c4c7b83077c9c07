"""`GET /v1/models`: the experts, the virtual models and the aliases that a caller's key reaches."""

from fastapi.responses import JSONResponse

from conclave.gateway.api import headers
from conclave.gateway.call import Head
from conclave.gateway.errors import Unauthenticated
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.record import Recorder


async def list_models(pipeline: Pipeline, recorder: Recorder, head: Head, *, request_id: str) -> JSONResponse:
    """The OpenAI list object. Raises what admission raises; who has no good key is counted, as for a call."""
    try:
        grant = await pipeline.access.admit(head)
    except Unauthenticated as error:
        recorder.refused(head, error, request_id)
        raise
    models = pipeline.policy.current.rules_for(grant.tenant).models(grant.scope)
    listed = [{"id": model, "object": "model", "created": 0, "owned_by": "conclave"} for model in models]
    about = headers.as_text(headers.request_headers(request_id, grant.rate))
    return JSONResponse({"object": "list", "data": listed}, headers=about)
