"""The registry as OpenTelemetry's data: the same values, dotted names."""

import threading
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otlp")

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, Counter, Gauge

from conclave.gateway.telemetry import names
from conclave.gateway.telemetry.push import MetricPush, read
from conclave.gateway.telemetry.weighted import WeightedHistogram


@pytest.fixture
def registry() -> CollectorRegistry:
    """A counter, a histogram and a gauge of ours, and one metric that is nobody's."""
    made = CollectorRegistry()
    labels = [names.prometheus_label(label) for label in names.CALLS.labels]
    Counter(names.prometheus(names.CALLS), names.CALLS.about, labels, registry=made).labels("answered", "200").inc(3)
    durations = WeightedHistogram(names.INFERENCE, made)
    durations.labelled(("chat", "openai", "big", "")).add(0.03, 2)
    durations.labelled(("chat", "openai", "big", "cut")).add(200.0, 1)
    version = names.POLICY_METRICS[0]
    Gauge(names.prometheus(version), version.about, ["conclave_policy_digest"], registry=made).labels("d").set(4)
    Counter("another_total", "of a library", registry=made).inc()
    return made


def found(registry: CollectorRegistry) -> dict[str, Any]:
    data = read(registry, Resource({}), 1, 2)
    return {
        metric.name: metric for part in data.resource_metrics for one in part.scope_metrics for metric in one.metrics
    }


def test_each_metric_goes_under_the_name_and_unit_of_its_definition(registry: CollectorRegistry) -> None:
    assert {name: one.unit for name, one in found(registry).items()} == {
        "conclave.requests": "{request}",
        "gen_ai.client.inference.duration": "s",
        "conclave.policy.version": "1",
    }


def test_a_counter_is_a_monotonic_sum_and_a_gauge_is_a_gauge(registry: CollectorRegistry) -> None:
    calls, version = found(registry)["conclave.requests"].data, found(registry)["conclave.policy.version"].data
    (point,) = calls.data_points
    assert (point.value, point.attributes) == (3, {"conclave.ending": "answered", "conclave.status": "200"})
    assert (point.start_time_unix_nano, point.time_unix_nano) == (1, 2)
    assert calls.is_monotonic
    assert [one.value for one in version.data_points] == [4]
    assert not hasattr(version, "is_monotonic")


def test_a_histogram_counts_what_is_in_each_bucket_and_an_empty_label_is_absent(registry: CollectorRegistry) -> None:
    good, cut = found(registry)["gen_ai.client.inference.duration"].data.data_points
    assert (good.count, good.sum, good.bucket_counts) == (2, pytest.approx(0.06), [0, 0, 2] + [0] * 12)
    assert (cut.count, cut.bucket_counts) == (1, [0] * 14 + [1])
    assert len(good.bucket_counts) == len(good.explicit_bounds) + 1
    assert "error.type" not in good.attributes
    assert cut.attributes["error.type"] == "cut"


def test_what_is_read_can_be_encoded(registry: CollectorRegistry) -> None:
    sent = encode_metrics(read(registry, Resource({}), 1, 2)).SerializeToString()
    assert b"gen_ai.client.inference.duration" in sent


class Keeper:
    """An exporter that keeps what it gets; it fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.got: list[Any] = []
        self.failures = failures
        self.enough = threading.Event()
        self.ended = False

    def export(self, metrics_data: Any, /) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the collector is down")
        self.got.append(metrics_data)
        if len(self.got) > 1:
            self.enough.set()

    def shutdown(self) -> None:
        self.ended = True


def test_values_are_sent_again_and_again_even_if_one_turn_fails(registry: CollectorRegistry) -> None:
    keeper = Keeper(failures=2)
    push = MetricPush(registry, keeper, Resource({}), every_s=0.01)
    push.start()
    assert keeper.enough.wait(10)
    assert push.close(10)
    assert keeper.ended


def test_the_last_values_are_sent_at_the_close(registry: CollectorRegistry) -> None:
    keeper = Keeper()
    push = MetricPush(registry, keeper, Resource({}), every_s=3600)
    push.start()
    assert push.close(10)
    assert len(keeper.got) == 1
