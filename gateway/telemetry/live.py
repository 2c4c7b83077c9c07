"""Metrics that are read off the process when somebody looks, beside those that are derived from its record."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from conclave.gateway.telemetry.names import Metric, prometheus

Values = Mapping[Metric, Callable[[], float]]


class Live(Collector):
    """Gauges and counters without labels; `values` are asked in the scrape's thread."""

    def __init__(self, registry: CollectorRegistry, values: Values) -> None:
        self._values = values
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        for metric, value in self._values.items():
            family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            yield family(prometheus(metric), metric.about, value=value())
