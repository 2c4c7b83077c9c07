"""Prometheus metrics, derived from the record: what is counted is what was recorded, and the call pays nothing for it.

They begin at zero with the process, as Prometheus expects, so only this process's chain is followed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, ProcessCollector

from conclave.gateway.followers.api import Row
from conclave.gateway.telemetry import names
from conclave.gateway.telemetry.names import OTHER, Metric
from conclave.gateway.telemetry.weighted import WeightedHistogram

MOST_ADDERS: Final = 1_000  # label sets remembered of one metric
MOST_VALUES: Final = 200  # of one label; what comes after them is counted as `_OTHER`
NONE_KNOWN: Final[Mapping[str, str]] = {}
GOOD: Final = 0.5  # a rating from here on
NOT_ASKED: Final = frozenset({"breaker_open", "no_deployment"})  # attempts that never reached an expert


class CallCounters:
    """A Follower that counts rows. `providers`: `gen_ai.provider.name` by expert (`names.PROVIDERS` by its kind).

    `tags` are the request tags to count by, with their values, as the policy has them now.
    """

    name = "counters"
    past = False

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        providers: Mapping[str, str] = NONE_KNOWN,
        tags: Callable[[], Mapping[str, Collection[str]]] = dict,
        metrics: Sequence[Metric] = names.METRICS,
    ) -> None:
        self._providers = providers
        self._tags = tags
        self._seen: dict[str, int] = {}
        self._instruments = {metric.name: _Instrument(metric, registry) for metric in metrics}
        ProcessCollector(registry=registry)

    def position(self) -> Mapping[str, int]:
        return dict(self._seen)

    def follow(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if row.seq > self._seen.get(row.chain, -1):
                self._seen[row.chain] = row.seq  # first: a row that cannot be counted must not be counted twice
                self._count(row.data)

    def _add(self, metric: Metric, amount: float | None, *labels: object, times: int = 1) -> None:
        """Count it, if the metric was chosen."""
        if amount is not None and (instrument := self._instruments.get(metric.name)) is not None:
            instrument.add(amount, labels, times)

    def _count(self, row: Mapping[str, Any]) -> None:
        kind = row["kind"]
        self._add(names.AUDIT_ROWS, 1, kind)
        if kind == "unauthenticated":
            self._add(names.UNAUTHENTICATED, row["count"])
        if kind == "feedback":
            self._add(names.RATED, 1, "good" if row["score"] >= GOOD else "bad")
        if kind == "ooda":
            self._add(names.OODA, 1, row["did"], row["deed"], row["attack"])
        if kind == "call":
            self._add(names.CALLS, 1, row["ending"], row["status"])
            self._add(names.CALL_DURATION, row["duration_ms"] / 1000, row["ending"])
            self._count_decision(row.get("decision"), row["ending"])
            if (escalated := row.get("escalated")) is not None:
                self._add(names.ESCALATIONS, 1, (row["decision"] or {}).get("category") or "", str(escalated).lower())
            self._count_look_up(row.get("retrieval"), row.get("decision"))
            self._count_verdict(row.get("verdict"), "request")
            self._count_verdict(row.get("guard"), "answer")
            if (stood := row.get("standing")) is not None:
                self._add(names.STANDING, 1, stood["band"], "acted" if stood["followed"] else "observed")
            self._count_tags(row)
            for attempt in row["attempts"]:
                self._count_attempt(row, attempt)

    def _count_verdict(self, verdict: Mapping[str, Any] | None, direction: str) -> None:
        if verdict is None:
            return
        if (would := verdict.get("would")) is not None:
            self._add(names.OBSERVED, 1, direction, would)
        for found in verdict["findings"]:
            self._add(names.FINDINGS, 1, found["check"], found["kind"], "acted" if found["acted"] else "observed")
        for ran in verdict["ran"]:
            self._add(names.CHECK_DURATION, ran["ms"] / 1000, ran["check"])
            if "error" in ran:
                self._add(names.CHECK_FAILURES, 1, ran["check"])

    def _count_look_up(self, retrieval: Mapping[str, Any] | None, decision: Mapping[str, Any] | None) -> None:
        if retrieval is None:
            return
        self._add(names.LOOK_UPS, 1, retrieval["outcome"])
        if (took_ms := retrieval.get("search_ms")) is not None:
            self._add(names.SEARCH_DURATION, took_ms / 1000)
        if (saved := ((decision or {}).get("look_up") or {}).get("saving", 0.0)) > 0:
            self._add(names.TOKENS_SAVED, saved)
        for _ in retrieval.get("passages", ()):
            self._add(names.PASSAGES, 1, "shown")
        for one in retrieval.get("kept_away", ()):
            self._add(names.PASSAGES, 1, one["reasons"][0])
        self._count_verdict(retrieval.get("verdict"), "retrieved")

    def _count_tags(self, row: Mapping[str, Any]) -> None:
        """Only tags that policy lists, and of each only the values listed: a client cannot make series."""
        tags = row.get("tags")
        if tags:
            listed = self._tags()
            for name in tags.keys() & listed.keys():
                value = tags[name] if tags[name] in listed[name] else names.OTHER_TAG
                self._add(names.TAGGED, 1, name, value, row["ending"])

    def _count_decision(self, decision: Mapping[str, Any] | None, ending: str) -> None:
        if decision is not None:
            if (arm := decision.get("arm")) is not None:
                self._add(names.SPLIT, 1, arm, ending)
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
        operation = row.get("operation") or names.CHAT
        about = (
            names.OPERATIONS.get(operation, operation),
            self._providers.get(attempt["expert"], OTHER),
            attempt["model"],
        )
        seconds = (attempt["ended_ms"] - attempt["started_ms"]) / 1000
        self._add(names.INFERENCE, seconds, *about, failure)
        self._add(names.OLD_DURATION, seconds, *about, failure)
        if row.get("stream") and attempt.get("first_byte_ms") is not None:
            self._count_chunks(attempt, about)
        self._count_tokens(attempt.get("usage") or {}, about)

    def _count_chunks(self, attempt: Mapping[str, Any], about: Sequence[str]) -> None:
        """The record has no time for each chunk: all but the first count with their mean, so that the sum is right."""
        seconds = (attempt["first_byte_ms"] - attempt["started_ms"]) / 1000
        self._add(names.FIRST_CHUNK, seconds, *about)
        self._add(names.OLD_FIRST_CHUNK, seconds, *about)
        if (gaps := attempt.get("chunks", 0) - 1) > 0:
            seconds = (attempt["ended_ms"] - attempt["first_byte_ms"]) / 1000 / gaps
            self._add(names.PER_CHUNK, seconds, *about, times=gaps)
            self._add(names.OLD_PER_CHUNK, seconds, *about, times=gaps)

    def _count_tokens(self, usage: Mapping[str, Any], about: tuple[str, str, str]) -> None:
        """As the expert counted them; an answer that never said counts as 0, not as what the gateway guessed."""
        said = {} if usage.get("estimated") else usage
        operation, provider, model = about
        counted = (operation, provider, names.UNKNOWN, model)
        self._add(names.INPUT, said.get("prompt_tokens") or 0, *counted)
        self._add(names.OUTPUT, said.get("completion_tokens") or 0, *counted)
        self._add(names.CACHED, said.get("cached_tokens"), *counted)
        self._add(names.REASONING, said.get("reasoning_tokens"), *counted)
        self._add(names.OLD_TOKENS, said.get("prompt_tokens"), operation, provider, "input", model)
        self._add(names.OLD_TOKENS, said.get("completion_tokens"), operation, provider, "output", model)


class _Instrument:
    """A metric in its registry, which never gets more than `MOST_VALUES` values of a label."""

    def __init__(self, metric: Metric, registry: CollectorRegistry) -> None:
        labels = [names.prometheus_label(label) for label in metric.labels]
        self._counter: Counter | None = None
        self._histogram: WeightedHistogram | None = None
        if metric.kind == "counter":
            self._counter = Counter(names.prometheus(metric), metric.about, labels, registry=registry)
        else:
            self._histogram = WeightedHistogram(metric, registry)
        self._values: list[set[str]] = [set() for _ in labels]
        self._adders: dict[tuple[object, ...], Callable[[float, int], None]] = {}

    def add(self, amount: float, labels: tuple[object, ...], times: int) -> None:
        adder = self._adders.get(labels)
        if adder is None:
            if len(self._adders) >= MOST_ADDERS:
                self._adders.clear()
            adder = self._adders[labels] = self._adder(labels)
        adder(amount, times)

    def _adder(self, labels: tuple[object, ...]) -> Callable[[float, int], None]:
        """What counts under these labels; prometheus_client looks them up anew each time, longer than all else."""
        values = [self._bounded(known, str(value)) for known, value in zip(self._values, labels, strict=True)]
        if self._histogram is not None:
            return self._histogram.labelled(tuple(values)).add
        assert self._counter is not None  # noqa: S101  one of the two
        counter = self._counter.labels(*values) if values else self._counter
        return lambda amount, times: counter.inc(amount * times)

    @staticmethod
    def _bounded(known: set[str], value: str) -> str:
        if value not in known:
            if len(known) >= MOST_VALUES:
                return OTHER
            known.add(value)
        return value
