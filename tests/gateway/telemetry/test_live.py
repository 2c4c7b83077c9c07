from prometheus_client import CollectorRegistry, generate_latest

from conclave.gateway.telemetry import names
from conclave.gateway.telemetry.live import Live


def test_what_is_read_off_the_process_is_as_it_is_when_somebody_looks() -> None:
    registry, calls = CollectorRegistry(), [1.0]
    Live(registry, {names.IN_WORK: lambda: calls[0], names.OVERLOADED: lambda: 7})
    assert registry.get_sample_value("conclave_calls_in_work") == 1
    calls[0] = 3
    assert registry.get_sample_value("conclave_calls_in_work") == 3
    assert registry.get_sample_value("conclave_calls_overloaded_total") == 7
    assert b"# TYPE conclave_calls_overloaded_total counter" in generate_latest(registry)
