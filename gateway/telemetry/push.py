"""The metrics of `/metrics` to a collector, by OTLP: the same values, under OpenTelemetry's own names.

Every OTEL_METRIC_EXPORT_INTERVAL (60 s) one thread reads the registry and sends what `names.py` defines. Nothing is
counted twice, and a call pays nothing.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from conclave.gateway.telemetry import names, otlp

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from prometheus_client import CollectorRegistry, Metric
    from prometheus_client.samples import Sample

INTERVAL_MS: Final = 60_000.0
DEFINED: Final[Mapping[str, names.Metric]] = {
    names.prometheus(metric).removesuffix("_total"): metric
    for metric in (*names.METRICS, *names.POLICY_METRICS, *names.FRONT_METRICS)
}

log = structlog.get_logger()


class Exporter(Protocol):
    """The SDK's `MetricExporter`, as far as it is used."""

    def export(self, metrics_data: Any, /) -> Any: ...
    def shutdown(self) -> None: ...


class MetricPush:
    """Sends until it is closed. `close` sends once more."""

    def __init__(self, registry: "CollectorRegistry", exporter: Exporter, resource: Any, *, every_s: float) -> None:
        self._registry = registry
        self._exporter = exporter
        self._resource = resource
        self._every_s = every_s
        self._since_ns = time.time_ns()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp-metrics", daemon=True)

    @classmethod
    def open(cls, registry: "CollectorRegistry") -> "MetricPush":
        """Begin, as the OTEL_* variables say. Raises Unavailable."""
        otlp.require("METRICS")
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415  the extra

        push = cls(registry, OTLPMetricExporter(), otlp.resource(), every_s=_interval_s(os.environ))
        push.start()
        return push

    def start(self) -> None:
        self._thread.start()

    def close(self, limit_s: float) -> bool:
        """Send the last values, for so long at most; whether that was done. Blocks."""
        self._stopping.set()
        return otlp.within(limit_s, self._end)

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            self.send()

    def _end(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()
        self.send()
        self._exporter.shutdown()

    def send(self) -> None:
        """Send all values once. The exporter logs what becomes of them; what fails is sent again with the next."""
        try:
            self._exporter.export(read(self._registry, self._resource, self._since_ns, time.time_ns()))
        except Exception as error:  # noqa: BLE001  the thread's edge: the next turn tries again
            log.warning("telemetry.push_failed", error=type(error).__name__)


def _interval_s(environ: Mapping[str, str]) -> float:
    """OTEL_METRIC_EXPORT_INTERVAL, in milliseconds; what is no positive number is taken for its default."""
    try:
        said_ms = float(environ.get("OTEL_METRIC_EXPORT_INTERVAL", ""))
    except ValueError:
        said_ms = INTERVAL_MS
    return (said_ms if 0 < said_ms < float("inf") else INTERVAL_MS) / 1000


def read(registry: "CollectorRegistry", resource: Any, since_ns: int, now_ns: int) -> "MetricsData":
    """All that the registry has and `names.py` defines, as the SDK's own data."""
    from opentelemetry.sdk.metrics import export as sdk  # noqa: PLC0415  the extra
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415

    found = [_metric(sdk, family, since_ns, now_ns) for family in registry.collect() if family.name in DEFINED]
    scope = sdk.ScopeMetrics(InstrumentationScope(otlp.NAME), [one for one in found if one.data.data_points], "")
    return sdk.MetricsData([sdk.ResourceMetrics(resource, [scope], "")])


def _metric(sdk: Any, family: "Metric", since_ns: int, now_ns: int) -> Any:
    metric = DEFINED[family.name]
    if metric.kind == "histogram":
        points = _histograms(sdk, metric, family.samples, since_ns, now_ns)
        data = sdk.Histogram(points, sdk.AggregationTemporality.CUMULATIVE)
    else:
        values = [one for one in family.samples if not one.name.endswith("_created")]
        points = [sdk.NumberDataPoint(_attributes(metric, one), since_ns, now_ns, one.value) for one in values]
        cumulative = sdk.AggregationTemporality.CUMULATIVE
        data = sdk.Gauge(points) if metric.kind == "gauge" else sdk.Sum(points, cumulative, True)  # monotonic
    return sdk.Metric(metric.name, metric.about, metric.unit, data)


def _histograms(
    sdk: Any, metric: names.Metric, samples: Iterable["Sample"], since_ns: int, now_ns: int
) -> Sequence[Any]:
    """Prometheus counts what is below each bound; OpenTelemetry what is in each bucket."""
    below: dict[tuple[str, ...], list[int]] = defaultdict(list)
    sums: dict[tuple[str, ...], Any] = {}
    for one in samples:
        key = tuple(value for name, value in one.labels.items() if name != "le")
        if one.name.endswith("_bucket"):
            below[key].append(int(one.value))
        elif one.name.endswith("_sum"):
            sums[key] = one
    return [
        sdk.HistogramDataPoint(
            attributes=_attributes(metric, sums[key]),
            start_time_unix_nano=since_ns,
            time_unix_nano=now_ns,
            count=counts[-1],
            sum=sums[key].value,
            bucket_counts=[after - before for before, after in zip([0, *counts], counts, strict=False)],
            explicit_bounds=metric.buckets,
            min=None,  # nobody knows
            max=None,
        )
        for key, counts in below.items()
    ]


def _attributes(metric: names.Metric, sample: "Sample") -> dict[str, str]:
    """By their dotted names; a label that is empty on `/metrics` is absent here."""
    found = {label: sample.labels.get(names.prometheus_label(label), "") for label in metric.labels}
    return {label: value for label, value in found.items() if value}
