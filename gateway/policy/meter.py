"""What `/metrics` says of the policy: the version in force, how often it changed and how fast, what was refused."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from conclave.gateway.telemetry import names

DIGEST_CHARS: Final = 12  # as answers and logs show it


class PolicyMeter:
    """Counts for one process. Its gauge has one series at a time: the version in force."""

    def __init__(self, registry: CollectorRegistry) -> None:
        version, swaps, rejections, duration = names.POLICY_METRICS
        self._version = Gauge(*_named(version), registry=registry)
        self._swaps = Counter(*_named(swaps), registry=registry)
        self._rejections = Counter(*_named(rejections), registry=registry)
        self._duration = Histogram(*_named(duration), registry=registry, buckets=duration.buckets)

    def in_force(self, number: int, digest: str) -> None:
        self._version.clear()
        self._version.labels(digest[:DIGEST_CHARS]).set(number)

    def swapped(self, origin: str, took_s: float) -> None:
        """`took_s`: from when the change was read until the new version was in force."""
        self._swaps.labels(origin).inc()
        self._duration.observe(took_s)

    def rejected(self, source: str) -> None:
        self._rejections.labels(source).inc()


def _named(metric: names.Metric) -> tuple[str, str, list[str]]:
    return names.prometheus(metric), metric.about, [names.prometheus_label(label) for label in metric.labels]
