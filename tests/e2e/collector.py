"""An OTLP collector in this process: it decodes what a gateway sends over HTTP, and keeps it."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from processes import until


class Collector:
    """Spans and metric points as they came. `refuses` makes it answer 503."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.refuses = False
        self.requests = 0
        self.headers: list[dict[str, str]] = []
        self.raw = b""
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.metrics: dict[str, Any] = {}
        self.changed = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take(self, path: str, body: bytes) -> None:
        with self.changed:
            self.raw += body
            if path == "/v1/traces":
                for part in ExportTraceServiceRequest.FromString(body).resource_spans:
                    self.resources.append(values(part.resource.attributes))
                    self.spans += [span for scope in part.scope_spans for span in scope.spans]
            elif path == "/v1/metrics":
                for part in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                    self.resources.append(values(part.resource.attributes))
                    self.metrics |= {one.name: one for scope in part.scope_metrics for one in scope.metrics}

    def trace(self, trace_id: str, *, count: int) -> dict[str, Any]:
        """The spans of a trace by name, once so many have come."""

        def found() -> list[Any]:
            with self.changed:
                here = [span for span in self.spans if span.trace_id.hex() == trace_id]
            return here if len(here) >= count else []

        spans = until(found, f"{count} spans of {trace_id}")
        assert len(spans) == count
        return {span.name: span for span in spans}


def values(attributes: Any) -> dict[str, Any]:
    """An attribute list as a dict."""
    return {one.key: value(one.value) for one in attributes}


def value(said: Any) -> Any:
    kind = said.WhichOneof("value")
    return [value(one) for one in said.array_value.values] if kind == "array_value" else getattr(said, kind)


@contextmanager
def collecting(port: int) -> Iterator[Collector]:
    """A collector on this port while the block runs."""
    collector = Collector(port)

    class Handler(BaseHTTPRequestHandler):
        protocol_version: ClassVar[str] = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.requests += 1
            collector.headers.append({name.lower(): said for name, said in self.headers.items()})
            if not collector.refuses:
                packed = self.headers.get("content-encoding") == "gzip"
                collector.take(self.path, gzip.decompress(body) if packed else body)
            self.send_response(503 if collector.refuses else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *about: object) -> None:
            """Nothing: pytest shows what matters."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
