"""One trace a call: from the client, through the gateway's stages, to the expert, as a collector sees it."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Gateway, Process, ask, config, free_port, launch, until

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otlp")

from collector import Collector, collecting, values

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
HTTP = "POST /v1/chat/completions"
INSIDE = {
    "conclave.admit",
    "conclave.receive",
    "conclave.boundary",
    "conclave.detect",
    "conclave.route",
    "conclave.guard",
    "conclave.record",
}
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "100"}

Start = Callable[..., Gateway]


@pytest.fixture
def start(upstream: Process, tmp_path: Path) -> Iterator[Start]:
    """Starts gateways, each in a folder of its own, and ends them."""
    started: list[Gateway] = []

    def one(*, telemetry: dict[str, Any], policy: dict[str, Any] | None = None, **env: str) -> Gateway:
        settings = {"server": {"telemetry": telemetry}, **config(upstream.port, **(policy or {}))}
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(launch(folder, settings, **env))
        return started[-1]

    yield one
    for gateway in started:
        gateway.stop()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting(free_port()) as opened:
        yield opened


@pytest.fixture(scope="module")
def gateway(upstream: Process, collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """With spans and metrics on, before the collector; `frail` falls back from an expert that is down."""
    telemetry = {"spans": True, "otlp_metrics": True, "gen_ai_metrics": "both"}
    settings = {"server": {"telemetry": telemetry}, **config(upstream.port, default=["down", "echo"])}
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=blue", **SOON}
    process = launch(tmp_path_factory.mktemp("traced"), settings, **env)
    yield process
    process.stop()


def traced(upstream: Process, trace_id: str) -> list[list[str]]:
    """What the upstream was told of a trace: model, traceparent, tracestate."""
    lines = [line.split()[1:] for line in upstream.output().splitlines() if line.startswith("traced ")]
    return [line for line in lines if trace_id in line[1]]


def new_trace() -> str:
    return f"{time.monotonic_ns():032x}"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_call_is_one_trace_from_the_client_to_the_expert(
    gateway: Gateway, upstream: Process, collector: Collector, stream: bool
) -> None:
    trace = new_trace()
    status, _, _ = gateway.post(
        ask("echo", stream=stream, max_tokens=9), traceparent=f"00-{trace}-{PARENT}-01", tracestate="congo=1"
    )
    assert status == 200
    spans = collector.trace(trace, count=10)
    assert set(spans) == {HTTP, "conclave.call", "chat echo", *INSIDE}
    assert spans[HTTP].parent_span_id.hex() == PARENT
    assert spans["conclave.call"].parent_span_id == spans[HTTP].span_id
    assert {spans[name].parent_span_id for name in (*INSIDE, "chat echo")} == {spans["conclave.call"].span_id}
    assert traced(upstream, trace) == [["echo", f"00-{trace}-{spans['chat echo'].span_id.hex()}-01", "congo=1"]]
    (row,) = [row for row in gateway.rows() if row.get("trace", {}).get("trace_id") == trace]
    assert row["trace"]["span_id"] == spans["conclave.call"].span_id.hex()
    assert row["attempts"][0]["span_id"] == spans["chat echo"].span_id.hex()
    about = values(spans["chat echo"].attributes)
    assert (about["gen_ai.request.max_tokens"], about["gen_ai.usage.input_tokens"]) == (9, 3)
    assert ("gen_ai.response.time_to_first_chunk" in about) is stream


def test_a_stage_lies_inside_its_call_and_the_call_inside_its_request(gateway: Gateway, collector: Collector) -> None:
    trace = new_trace()
    gateway.post(ask("echo"), traceparent=f"00-{trace}-{PARENT}-01")
    spans = collector.trace(trace, count=10)
    call = spans["conclave.call"]
    slack_ns = 5_000_000  # two clocks: the request's span reads the wall clock at its end, the record a monotonic one
    assert spans[HTTP].start_time_unix_nano <= call.start_time_unix_nano
    assert call.end_time_unix_nano <= spans[HTTP].end_time_unix_nano + slack_ns
    inner = [spans[name] for name in (*INSIDE - {"conclave.record"}, "chat echo")]
    for span in inner:
        assert call.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= call.end_time_unix_nano


def test_each_expert_that_was_asked_has_a_span_of_its_own(
    gateway: Gateway, upstream: Process, collector: Collector
) -> None:
    trace = new_trace()
    assert gateway.post(ask("auto"), traceparent=f"00-{trace}-{PARENT}-01")[0] == 200
    spans = collector.trace(trace, count=11)
    assert traced(upstream, trace) == [
        [model, f"00-{trace}-{spans[f'chat {model}'].span_id.hex()}-01", "-"] for model in ("down", "echo")
    ]
    assert values(spans["chat down"].attributes)["error.type"] == "status"
    assert values(spans["conclave.route"].attributes)["conclave.decision"] == "down"


def test_without_a_caller_the_request_is_the_root(gateway: Gateway, upstream: Process, collector: Collector) -> None:
    _, headers, _ = gateway.post(ask("echo"))
    row = gateway.row(headers["x-request-id"])
    spans = collector.trace(row["trace"]["trace_id"], count=10)
    assert spans[HTTP].parent_span_id == b""
    assert len(traced(upstream, row["trace"]["trace_id"])) == 1


def test_a_trace_that_nobody_wants_has_no_spans_and_goes_on_all_the_same(
    gateway: Gateway, upstream: Process, collector: Collector
) -> None:
    unwanted, after = new_trace(), new_trace()
    gateway.post(ask("echo"), traceparent=f"00-{unwanted}-{PARENT}-00")
    gateway.post(ask("echo"), traceparent=f"00-{after}-{PARENT}-01")
    collector.trace(after, count=10)
    assert not [span for span in collector.spans if span.trace_id.hex() == unwanted]
    ((_, told, _),) = traced(upstream, unwanted)
    assert told.endswith("-00")


def test_a_refused_call_says_in_which_stage_and_why(gateway: Gateway, collector: Collector) -> None:
    trace = new_trace()
    assert gateway.post(ask("no-such-model"), traceparent=f"00-{trace}-{PARENT}-01")[0] == 404
    spans = collector.trace(trace, count=8)
    route = values(spans["conclave.route"].attributes)
    assert route["conclave.decision"] == "refused"
    assert route["conclave.reason"] == json.loads(gateway.post(ask("no-such-model"))[2])["error"]["code"]


def test_the_collector_is_told_who_speaks_and_gets_the_headers_of_the_variables(
    gateway: Gateway, collector: Collector
) -> None:
    gateway.post(ask("echo"))
    until(lambda: collector.resources, "something came")
    about = collector.resources[-1]
    assert about["service.name"] == "conclave"
    assert about["service.version"]
    assert len(about["service.instance.id"]) == 36
    assert collector.headers[-1]["x-tenant"] == "blue"


def test_metrics_come_under_the_conventions_names_and_with_the_values_of_the_page(
    gateway: Gateway, collector: Collector
) -> None:
    gateway.post(ask("echo", stream=True))

    def point(name: str, **labels: str) -> Any:
        metric = collector.metrics.get(name)
        found = getattr(metric, metric.WhichOneof("data")).data_points if metric is not None else ()
        return next((one for one in found if labels.items() <= values(one.attributes).items()), None)

    def counted() -> Any:
        return point("gen_ai.client.inference.time_per_output_chunk", **{"gen_ai.request.model": "echo"})

    gaps = until(counted, "the metrics came")
    assert gaps.count == sum(gaps.bucket_counts)
    assert list(gaps.explicit_bounds)[:3] == [0.01, 0.02, 0.04]
    model = {"gen_ai.request.model": "echo", "gen_ai.provider.name": "openai", "gen_ai.operation.name": "chat"}
    page = urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin_port}/metrics", timeout=5).read().decode()
    shown = next(
        float(line.rsplit(" ", 1)[1])
        for line in page.splitlines()
        if line.startswith("gen_ai_client_inference_usage_input_tokens_total{") and 'request_model="echo"' in line
    )
    until(
        lambda: point("gen_ai.client.inference.usage.input_tokens", **model).as_double == shown, "the page's own value"
    )
    assert point("gen_ai.client.token.usage", **model, **{"gen_ai.token.type": "input"}).sum == shown
    assert (
        point("gen_ai.client.operation.duration", **model).count
        == point("gen_ai.client.inference.duration", **model).count
    )
    assert "error.type" not in values(point("gen_ai.client.inference.duration", **model).attributes)
    assert collector.metrics["gen_ai.client.inference.duration"].unit == "s"
    assert collector.metrics["conclave.requests"].sum.is_monotonic


HOSTILE = "Zebra crossing yonder"


def test_nothing_that_a_client_wrote_reaches_the_collector(gateway: Gateway, collector: Collector) -> None:
    """Its text, key, query and path, its model's name, the host that it called, its body where it is broken."""
    secret = HOSTILE.encode()
    url, key = f"{gateway.url}/v1/chat/completions", {"authorization": f"Bearer sk-{HOSTILE.replace(' ', '')}"}
    asked: list[tuple[str, bytes, dict[str, str]]] = [
        (url, json.dumps(ask("echo", HOSTILE, user=HOSTILE, stop=[HOSTILE], seed=1)).encode(), {}),
        (url, json.dumps(ask(HOSTILE)).encode(), {}),
        (url, secret, {}),
        (url, json.dumps(ask("echo", HOSTILE, reasoning_effort=HOSTILE, temperature=HOSTILE)).encode(), {}),
        (url, json.dumps(ask("echo")).encode(), key),
        (f"{url}?key={HOSTILE.replace(' ', '')}", json.dumps(ask("echo")).encode(), {"host": "zebracrossingyonder"}),
        (f"{gateway.url}/v1/{HOSTILE.replace(' ', '')}", b"{}", {}),
        (url, json.dumps(ask("picky", HOSTILE)).encode(), {"traceparent": HOSTILE, "baggage": f"a={HOSTILE}"}),
        (url, json.dumps(ask("echo")).encode(), {"x-request-id": HOSTILE, "user-agent": HOSTILE}),
    ]
    for to, body, headers in asked:
        request = urllib.request.Request(to, body, {"content-type": "application/json", **headers})
        try:
            urllib.request.urlopen(request, timeout=10).read()
        except urllib.error.HTTPError as error:
            error.read()
    last = new_trace()
    gateway.post(ask("echo"), traceparent=f"00-{last}-{PARENT}-01")
    collector.trace(last, count=10)
    seen = collector.raw.lower()
    assert b"zebra" not in seen
    assert b"yonder" not in seen
    assert b"says no" not in seen  # an expert's words in an error


def test_with_spans_off_a_trace_goes_on_as_it_came_and_nothing_else_does(start: Start, upstream: Process) -> None:
    gateway, trace = start(telemetry={}), new_trace()
    came = f"00-{trace}-{PARENT}-01"
    gateway.post(ask("echo"), traceparent=came, tracestate="congo=1,rojo=2")
    gateway.post(ask("echo"), traceparent=f"{came}-more")
    gateway.post(ask("echo"))
    assert traced(upstream, trace) == [["echo", came, "congo=1,rojo=2"]]
    rows = [row.get("trace") for row in gateway.rows()]
    assert rows == [{"trace_id": trace, "parent_id": PARENT, "sampled": True}, None, None]
    before = len(upstream.output().splitlines())
    gateway.post(ask("echo"))
    assert len(upstream.output().splitlines()) == before


def test_spans_that_the_variables_switch_off_are_as_if_they_were_off(start: Start, upstream: Process) -> None:
    came = f"00-{(trace := new_trace())}-{PARENT}-01"
    gateway = start(telemetry={"spans": True}, OTEL_SDK_DISABLED="true")
    gateway.post(ask("echo"), traceparent=came)
    assert traced(upstream, trace) == [["echo", came, "-"]]
    assert "span_id" not in gateway.rows()[0]["trace"]


def test_what_waits_is_sent_at_the_stop_and_never_again(start: Start, collector: Collector) -> None:
    """A restart reads the rows of the process before it, and must not tell them again."""
    later = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    trace = new_trace()
    gateway = start(telemetry={"spans": True, "otlp_metrics": True}, **later)
    gateway.post(ask("echo"), traceparent=f"00-{trace}-{PARENT}-01")
    assert gateway.stop() == 0
    collector.trace(trace, count=10)
    gateway.start()
    again = new_trace()
    gateway.post(ask("echo"), traceparent=f"00-{again}-{PARENT}-01")
    assert gateway.stop() == 0
    collector.trace(again, count=10)
    collector.trace(trace, count=10)


@pytest.mark.parametrize("kind", ["refuses", "is down"])
def test_a_collector_that_does_not_take_spans_hurts_no_call_and_no_stop(start: Start, kind: str) -> None:
    with collecting(free_port()) as sick:
        sick.refuses = True
        port = sick.port if kind == "refuses" else free_port()
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", **SOON, "OTEL_BSP_MAX_QUEUE_SIZE": "600"}
        gateway = start(telemetry={"spans": True, "otlp_metrics": True}, **env)
        begun_s = time.monotonic()
        for _ in range(120):  # 960 spans: more than the queue holds
            assert gateway.post(ask("echo"))[0] == 200
        assert time.monotonic() - begun_s < 15
        begun_s = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - begun_s < 10
        assert len(gateway.rows()) == 120


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'"),
        (
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "collector:4317"},
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT must be http://",
        ),
    ],
    ids=["protocol", "address"],
)
def test_what_cannot_be_exported_is_said_at_the_start(tmp_path: Path, env: dict[str, str], words: str) -> None:
    done = serve(tmp_path, env)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_extra_is_named_at_the_start(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['opentelemetry.sdk'] = None; from conclave.gateway.cli import main; main()"
    done = serve(tmp_path, {}, "-c", hidden)
    assert done.returncode == 1
    assert "make install EXTRAS=otlp" in done.stderr
    assert "Traceback" not in done.stderr


def serve(folder: Path, env: dict[str, str], *python: str) -> subprocess.CompletedProcess[str]:
    (folder / "conclave.yaml").write_text(json.dumps({"server": {"telemetry": {"spans": True}}}))
    command = [sys.executable, *(python or ("-m", "conclave.gateway.cli")), "serve", "--port", "0", "--admin-port", "0"]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=30, check=False)
