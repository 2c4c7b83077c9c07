"""A histogram for `/metrics` that takes a value many times at once: prometheus_client's own takes one value a call.

A stream of 50 chunks counts 49 gaps; one by one they would cost more than all other metrics of the call together.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from conclave.gateway.telemetry.names import Metric, prometheus, prometheus_label


class Series:
    """The values under one set of labels. Counted in one thread, read in another."""

    __slots__ = ("_bounds", "_counts", "_lock", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def add(self, value: float, times: int) -> None:
        """Count a value; a bucket holds what is not above its bound."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += times
            self._sum += value * times

    def read(self) -> tuple[list[int], float]:
        """How many values are in each bucket, and their sum."""
        with self._lock:
            return list(self._counts), self._sum


class WeightedHistogram(Collector):
    """One metric of `names.py` in its registry. Its labels are bounded by who counts."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        self._metric = metric
        self._series: dict[tuple[str, ...], Series] = {}
        self._ends = [*map(str, metric.buckets), "+Inf"]
        registry.register(self)

    def labelled(self, values: tuple[str, ...]) -> Series:
        """The series of these labels' values, made when it is first asked for."""
        return self._series.setdefault(values, Series(self._metric.buckets))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        labels = [prometheus_label(label) for label in self._metric.labels]
        family = HistogramMetricFamily(prometheus(self._metric), self._metric.about, labels=labels)
        for values, series in list(self._series.items()):
            counts, total = series.read()
            below, buckets = 0, []
            for end, count in zip(self._ends, counts, strict=True):
                below += count
                buckets.append((end, below))
            family.add_metric(values, buckets, total)
        yield family
