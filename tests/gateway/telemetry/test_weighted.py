import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from conclave.gateway.telemetry.names import CALL_DURATION
from conclave.gateway.telemetry.weighted import WeightedHistogram

VALUES = (0.0005, 0.001, 0.0011, 3.0, 900.0)


def page(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@pytest.mark.parametrize("times", [1, 3])
def test_the_page_is_the_one_of_prometheus_own_histogram(times: int) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    own = WeightedHistogram(CALL_DURATION, ours)
    library = Histogram(
        "conclave_request_duration_seconds",
        CALL_DURATION.about,
        ["conclave_ending"],
        registry=theirs,
        buckets=CALL_DURATION.buckets,
    )
    for value in VALUES:
        own.labelled(("answered",)).add(value, times)
        for _ in range(times):
            library.labels("answered").observe(value)
    assert [line.rsplit(" ", 1)[0] for line in page(ours)] == [line.rsplit(" ", 1)[0] for line in page(theirs)]
    found, expected = ([float(line.rsplit(" ", 1)[1]) for line in page(r) if line[0] != "#"] for r in (ours, theirs))
    assert found == pytest.approx(expected)


def test_a_metric_without_values_is_on_the_page_by_name() -> None:
    registry = CollectorRegistry()
    WeightedHistogram(CALL_DURATION, registry)
    assert [family.name for family in registry.collect()] == ["conclave_request_duration_seconds"]
