"""What the local expert tells Prometheus: the engine's load, how calls ended, and what each layer's routing did.

Numbers with bounded labels (layer, expert, how a call ended); never what was asked or answered.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from conclave.moe.engine import Load
from conclave.moe.handoff import Usage


class Numbers(Collector):
    """Counts calls; reads the rest from the engine when it is asked."""

    def __init__(self, load: Callable[[], Load]) -> None:
        self._load = load
        self._calls: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._flops_saved = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def ended(self, how: str, usage: Usage | None = None) -> None:
        """`how` is a finish reason, an error's code, or `left`."""
        self._calls[how] += 1
        if usage is not None:
            self._tokens["prompt"] += usage.prompt_tokens
            self._tokens["completion"] += usage.completion_tokens
            self._flops_saved += usage.flops_saved

    def text(self) -> bytes:
        """The page. Waits for the model's turn: call it from a thread."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        return []  # registering must not wait for the model

    def collect(self) -> Iterator[Metric]:
        load = self._load()
        calls = CounterMetricFamily("conclave_moe_calls", "Calls, by how they ended.", labels=["ending"])
        for how, number in sorted(self._calls.items()):
            calls.add_metric([how], number)
        tokens = CounterMetricFamily("conclave_moe_tokens", "Tokens of answered calls.", labels=["kind"])
        for kind, number in sorted(self._tokens.items()):
            tokens.add_metric([kind], number)
        yield from (calls, tokens)
        saved = "Arithmetic not done in answered calls, against the model as it came; below 0: more was done."
        yield GaugeMetricFamily("conclave_moe_flops_saved", saved, value=self._flops_saved)
        yield GaugeMetricFamily("conclave_moe_running", "Calls that run.", value=load.running)
        yield GaugeMetricFamily("conclave_moe_waiting", "Calls that wait for room.", value=load.waiting)
        yield GaugeMetricFamily(
            "conclave_moe_kv_tokens", "Tokens of cache that running calls hold.", value=load.kv_tokens
        )
        yield from _layers(load)


def _layers(load: Load) -> Iterator[Metric]:
    gauges = {
        "tokens": GaugeMetricFamily("conclave_moe_layer_tokens", "Tokens routed since the start.", labels=["layer"]),
        "entropy": GaugeMetricFamily(
            "conclave_moe_layer_entropy", "Entropy of the gate in nats, mean over tokens.", labels=["layer"]
        ),
        "null_share": GaugeMetricFamily(
            "conclave_moe_layer_null_share", "Share of the policy's choices that run nothing.", labels=["layer"]
        ),
        "experts_per_token": GaugeMetricFamily(
            "conclave_moe_layer_experts_per_token", "Experts that a token runs, mean.", labels=["layer"]
        ),
    }
    loads = GaugeMetricFamily(
        "conclave_moe_layer_load", "Share of the layer's expert runs.", labels=["layer", "expert"]
    )
    for use in load.layers:
        for name, gauge in gauges.items():
            gauge.add_metric([str(use.layer)], getattr(use, name))
        for expert, share in enumerate(use.load):
            loads.add_metric([str(use.layer), str(expert)], share)
    yield from (*gauges.values(), loads)
