"""Prometheus metrics, derived from the record: what is counted is what was recorded, and the call pays nothing for it.

They begin at zero with the process, as Prometheus expects, so only this process's chain is followed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from conclave.gateway.followers.api import Row
from conclave.gateway.telemetry import names
from conclave.gateway.telemetry.names import OTHER, Metric

MOST_ADDERS: Final = 1_000  # label sets remembered of one metric
MOST_VALUES: Final = 200  # of one label; what comes after them is counted as `_OTHER`
NONE_KNOWN: Final[Mapping[str, str]] = {}
NOT_ASKED: Final = frozenset({"breaker_open", "no_deployment"})  # attempts that never reached an expert


class CallCounters:
    """A Follower that counts rows. `providers`: `gen_ai.provider.name` by expert (`names.PROVIDERS` by its kind)."""

    name = "counters"
    past = False

    def __init__(self, registry: CollectorRegistry, *, providers: Mapping[str, str] = NONE_KNOWN) -> None:
        self._providers = providers
        self._seen: dict[str, int] = {}
        self._instruments = {metric.name: _Instrument(metric, registry) for metric in names.METRICS}
        ProcessCollector(registry=registry)

    def position(self) -> Mapping[str, int]:
        return dict(self._seen)

    def follow(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.seq > self._seen.get(row.chain, -1):
                self._seen[row.chain] = row.seq  # first: a row that cannot be counted must not be counted twice
                self._count(row.data)

    def _add(self, metric: Metric, amount: float | None, *labels: object) -> None:
        if amount is not None:
            self._instruments[metric.name].add(amount, labels)

    def _count(self, row: Mapping[str, Any]) -> None:
        kind = row["kind"]
        self._add(names.AUDIT_ROWS, 1, kind)
        if kind == "unauthenticated":
            self._add(names.UNAUTHENTICATED, row["count"])
        if kind == "call":
            self._add(names.CALLS, 1, row["ending"], row["status"])
            self._add(names.CALL_DURATION, row["duration_ms"] / 1000, row["ending"])
            self._count_decision(row.get("decision"))
            for attempt in row["attempts"]:
                self._count_attempt(row, attempt)
            self._count_usage(row)

    def _count_decision(self, decision: Mapping[str, Any] | None) -> None:
        if decision is not None:
            category = decision.get("category") or ""
            unsure = str(decision.get("unsure", False)).lower()
            self._add(names.ROUTED, 1, category, decision["reason"], unsure)
            self._add(names.CONFIDENCE, decision.get("confidence"), category)

    def _count_attempt(self, row: Mapping[str, Any], attempt: Mapping[str, Any]) -> None:
        failure = attempt.get("failure") or ""
        self._add(names.ATTEMPTS, 1, attempt["expert"], failure)
        if attempt.get("transport_retries"):
            self._add(names.TRANSPORT_RETRIES, attempt["transport_retries"], attempt["expert"])
        if failure in NOT_ASKED or attempt.get("ended_ms") is None:
            return
        about = self._about(attempt)
        self._add(names.INFERENCE, (attempt["ended_ms"] - attempt["started_ms"]) / 1000, *about, failure)
        if row.get("stream") and attempt.get("first_byte_ms") is not None:
            self._add(names.FIRST_CHUNK, (attempt["first_byte_ms"] - attempt["started_ms"]) / 1000, *about)

    def _count_usage(self, row: Mapping[str, Any]) -> None:
        """The usage is that of the last expert: the one whose answer the client got."""
        usage = row.get("usage")
        if usage and row["attempts"]:
            about = self._about(row["attempts"][-1])
            self._add(names.INPUT, usage["prompt_tokens"], *about)
            self._add(names.OUTPUT, usage["completion_tokens"], *about)
            self._add(names.CACHED, usage["cached_tokens"], *about)
            self._add(names.REASONING, usage["reasoning_tokens"], *about)

    def _about(self, attempt: Mapping[str, Any]) -> tuple[str, str, str]:
        return names.CHAT, self._providers.get(attempt["expert"], OTHER), attempt["model"]


class _Instrument:
    """A metric in its registry, which never gets more than `MOST_VALUES` values of a label."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        labels = [names.prometheus_label(label) for label in metric.labels]
        name = names.prometheus(metric)
        self._counter = self._histogram = None
        if metric.kind == "counter":
            self._counter = Counter(name, metric.about, labels, registry=registry)
        else:
            self._histogram = Histogram(name, metric.about, labels, registry=registry, buckets=metric.buckets)
        self._values: list[set[str]] = [set() for _ in labels]
        self._adders: dict[tuple[object, ...], Callable[[float], None]] = {}

    def add(self, amount: float, labels: tuple[object, ...]) -> None:
        adder = self._adders.get(labels)
        if adder is None:
            if len(self._adders) >= MOST_ADDERS:
                self._adders.clear()
            adder = self._adders[labels] = self._adder(labels)
        adder(amount)

    def _adder(self, labels: tuple[object, ...]) -> Callable[[float], None]:
        """What counts under these labels; prometheus_client looks them up anew each time, longer than all else."""
        values = [self._bounded(known, str(value)) for known, value in zip(self._values, labels, strict=True)]
        if self._counter is not None:
            return (self._counter.labels(*values) if values else self._counter).inc
        assert self._histogram is not None  # noqa: S101  one of the two
        return (self._histogram.labels(*values) if values else self._histogram).observe

    @staticmethod
    def _bounded(known: set[str], value: str) -> str:
        if value not in known:
            if len(known) >= MOST_VALUES:
                return OTHER
            known.add(value)
        return value
