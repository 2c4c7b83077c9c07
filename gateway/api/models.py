"""`/v1/models` and `/v1/models/{model}`: the experts, the virtual models and the aliases that a caller's key reaches.

Nothing is deleted here: the policy says which models there are, and DELETE answers that nothing was.
"""

from typing import Any

from fastapi.responses import JSONResponse

from conclave.gateway.api import headers
from conclave.gateway.call import Head
from conclave.gateway.errors import Unauthenticated, UnknownModel
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.record import Recorder

KEPT = "models are set in the policy; nothing was deleted"
MOST_CHARS = 64  # of a name that nobody knows, in our answer


class Models:
    """Answers one request. Its methods raise what admission raises; who has no good key is counted, as for a call."""

    def __init__(self, pipeline: Pipeline, recorder: Recorder, head: Head, *, request_id: str) -> None:
        self._pipeline = pipeline
        self._recorder = recorder
        self._head = head
        self._id = request_id
        self._about: dict[str, str] = {}

    async def all(self) -> JSONResponse:
        """The OpenAI list object."""
        listed = [_described(model) for model in await self._reached()]
        return self._answer({"object": "list", "data": listed})

    async def one(self, model: str) -> JSONResponse:
        """One of them. Raises UnknownModel, also for what exists but not for this key."""
        return self._answer(_described(await self._known(model)))

    async def kept(self, model: str) -> JSONResponse:
        """The answer to DELETE: still there, and why. Raises UnknownModel."""
        answer = {"id": await self._known(model), "object": "model", "deleted": False, "conclave": {"reason": KEPT}}
        return self._answer(answer)

    async def _known(self, model: str) -> str:
        if model not in await self._reached():
            words = f"there is no model {model[:MOST_CHARS]!r} here; GET /v1/models lists those that there are"
            raise UnknownModel(words, param="model")
        return model

    async def _reached(self) -> list[str]:
        try:
            grant = await self._pipeline.access.admit(self._head)
        except Unauthenticated as error:
            self._recorder.refused(self._head, error, self._id)
            raise
        self._about = headers.as_text(headers.request_headers(self._id, grant.rate))
        return self._pipeline.policy.current.rules_for(grant.tenant).models(grant.scope)

    def _answer(self, body: dict[str, Any]) -> JSONResponse:
        return JSONResponse(body, headers=self._about)


def _described(model: str) -> dict[str, Any]:
    """The OpenAI model object; when a model was made is not ours to know."""
    return {"id": model, "object": "model", "created": 0, "owned_by": "conclave"}
