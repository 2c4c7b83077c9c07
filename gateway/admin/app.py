"""The control plane: metrics and health on their own port. Nothing here takes a call, and nothing here shows one."""

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from conclave.gateway.api import health
from conclave.gateway.api.health import Checks
from conclave.gateway.telemetry.native import native


def create_admin_app(checks: Checks, registry: CollectorRegistry) -> FastAPI:
    """`/metrics`, `/livez`, `/readyz`; `checks` and `registry` are the data plane's own."""
    app = FastAPI(title="Conclave control plane", docs_url=None, redoc_url=None, openapi_url=None, telemetry=native())
    app.include_router(health.routes(checks))

    @app.get("/metrics")
    def metrics() -> Response:  # in a thread: a scrape formats thousands of lines
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app
