import re
from pathlib import Path

import pytest

from conclave.gateway.telemetry import names

METRICS = (*names.METRICS, *names.POLICY_METRICS, *names.FRONT_METRICS)
PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()


@pytest.mark.parametrize("metric", METRICS, ids=names.prometheus)
def test_every_metric_and_its_labels_are_documented(metric: names.Metric) -> None:
    line = next((line for line in PAGE.splitlines() if f"`{names.prometheus(metric)}`" in line), None)
    assert line is not None, names.prometheus(metric)
    for label in metric.labels:
        assert f"`{names.prometheus_label(label)}`" in line


def test_no_metric_is_documented_that_does_not_exist() -> None:
    known = {names.prometheus(metric) for metric in METRICS}
    known |= {names.prometheus_label(label) for metric in METRICS for label in metric.labels}
    assert set(re.findall(r"`((?:conclave|gen_ai)_[a-z_]+)`", PAGE)) - known == set()


def test_names_on_metrics_follow_opentelemetrys_rules() -> None:
    assert names.prometheus(names.INFERENCE) == "gen_ai_client_inference_duration_seconds"
    assert names.prometheus(names.CALLS) == "conclave_requests_total"
    assert names.prometheus(names.CONFIDENCE) == "conclave_route_confidence"


@pytest.mark.parametrize("metric", METRICS, ids=names.prometheus)
def test_a_histogram_has_buckets_in_order_and_a_counter_has_none(metric: names.Metric) -> None:
    assert (metric.kind == "histogram") == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))


def test_no_two_metrics_share_a_name() -> None:
    assert len({names.prometheus(metric) for metric in METRICS}) == len(METRICS)
