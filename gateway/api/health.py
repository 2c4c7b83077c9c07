"""`/livez` (this process answers) and `/readyz` (it can serve a call), the same on both planes."""

from collections.abc import Callable
from typing import TypeAlias

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from conclave.gateway.api import headers

Checks: TypeAlias = Callable[[], dict[str, str]]  # name -> "ok", "note: ..." or what is wrong


def routes(checks: Checks) -> APIRouter:
    """The two endpoints; `checks` is asked anew for each readiness probe."""
    router = APIRouter()

    @router.get("/livez")
    async def livez() -> JSONResponse:
        return JSONResponse({"status": "ok"}, headers=_about())

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        found = checks()
        ready = all(state == "ok" or state.startswith("note: ") for state in found.values())
        status = {"status": "ok" if ready else "unready", "checks": found}
        return JSONResponse(status, 200 if ready else 503, headers=_about())

    return router


def _about() -> dict[str, str]:
    return headers.as_text(headers.request_headers(headers.new_id()))
