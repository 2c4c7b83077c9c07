"""openai-python's own generated tests: against a mock of the API alone, then against the gateway in front of that mock.

The mock (`steady`, of the npm package @stdy/cli) serves the document that document.py makes, and answers 400 to a
request that the document does not allow. What fails directly too is no fault of the gateway's, so each file must pass
whole both ways, and none of its tests be lost. The mock's log tells what it was sent, which must be the same both ways.
`make clients` installs all that is needed; with CONFORMANCE_SHOW=1 the output of the tests themselves is shown.
"""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from processes import Gateway, Process, free_port, launch

HERE = Path(__file__).parent
CLIENTS = HERE.parent / "clients"
PYTHON = CLIENTS / ".venv-openai2" / "bin" / "python"
NODE = CLIENTS / ".venv-node" / "bin" / "node"
STEADY = CLIENTS / "node_modules" / "@stdy" / "cli" / "steady.js"
TESTS = CLIENTS / ".sdist" / "tests"
MODELS = {  # what the tests ask for
    "gpt-5.4",
    "gpt-3.5-turbo-instruct",
    "text-embedding-3-small",
    "omni-moderation-latest",
    "gpt-4o-mini",
    "ft:gpt-4o-mini:acemeco:suffix:abc123",
}
CAPABILITIES = ["tools", "images", "audio", "files", "json_mode", "json_schema", "n", "logprobs"]
CAPABILITIES += ["completions", "embeddings", "moderations"]
INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = session\n"

pytestmark = pytest.mark.skipif(
    not (CLIENTS / ".installed").exists(), reason="openai-python's tests are not here; `make clients` fetches them"
)


SUITES = {  # the file, and how many tests are in it
    "chat/test_completions.py": 45,  # of `create`; the others are of stored completions
    "test_completions.py": 40,
    "test_embeddings.py": 20,
    "test_models.py": 55,
    "test_moderations.py": 20,
}
CREATE_OF_CHAT = "create or not chat"
SAY_ALL = ("--log-level", "full", "--log-bodies", "--no-color")
SENT = re.compile(r"POST (\S+) → .*?\n  Request:\n.*?\n    Body: \n(.*?)\n  Response:", re.DOTALL)
LIMIT_S = 240  # for all of them; they take some 10 s
MOST_FAILURES = 10  # then enough is known: a refusal that is retried takes seconds


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """The API as openai-python's types describe it."""
    folder, port = tmp_path_factory.mktemp("mock"), free_port()
    made = subprocess.run([PYTHON, HERE / "document.py"], capture_output=True, check=True, timeout=60)
    (folder / "openapi.json").write_bytes(made.stdout)
    bare = ["env", "-i", "NO_UPDATE_NOTIFIER=1"]  # with CI set it would log a summary instead of the bodies
    command = [*bare, str(NODE), str(STEADY), "--port", str(port), "--reject-on-sdk-error", *SAY_ALL, "openapi.json"]
    process = Process(command, port, folder, {}).start()
    yield process
    process.stop()


@pytest.fixture(scope="module")
def gateway(mock: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose only expert is the mock."""
    process = launch(tmp_path_factory.mktemp("gateway"), config(mock.port))
    yield process
    process.stop()


def config(port: int) -> dict[str, Any]:
    expert = {
        "kind": "openai",
        "base_url": f"http://127.0.0.1:{port}",
        "model": "mock",
        "capabilities": CAPABILITIES,
        "transport_retries": 0,
    }
    return {"policy": {"experts": {"mock": expert}, "default": ["mock"], "aliases": dict.fromkeys(MODELS, "mock")}}


@dataclass(frozen=True)
class Run:
    """How a suite's tests ended: how many passed, the others by name. And what the mock was sent meanwhile."""

    endings: dict[str, Counter[str]]
    sent: Counter[str]


@pytest.fixture(scope="module")
def directly(mock: Process, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(mock, f"http://127.0.0.1:{mock.port}", tmp_path_factory.mktemp("directly"))


@pytest.fixture(scope="module")
def through(mock: Process, gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(mock, f"{gateway.url}/v1", tmp_path_factory.mktemp("through"))


@pytest.mark.parametrize("suite", SUITES)
def test_the_mock_alone_passes(suite: str, directly: Run) -> None:
    assert directly.endings[suite] == Counter(passed=SUITES[suite])


@pytest.mark.parametrize("suite", SUITES)
def test_the_gateway_before_the_mock_passes_the_same(suite: str, through: Run) -> None:
    assert through.endings[suite] == Counter(passed=SUITES[suite])


def test_every_parameter_arrives_as_it_was_sent(directly: Run, through: Run) -> None:
    assert through.sent == directly.sent
    assert sum(directly.sent.values()) > 100


def run(mock: Process, base_url: str, folder: Path) -> Run:
    (folder / "pytest.ini").write_text(INI)
    report, root = folder / "report.xml", TESTS.parent
    command = [PYTHON, "-m", "pytest", "-c", folder / "pytest.ini", "--rootdir", root, "--confcutdir", root]
    command += ["-p", "no:cacheprovider", "--quiet", "--tb=line", f"--junit-xml={report}", "-k", CREATE_OF_CHAT]
    command += [f"--maxfail={MOST_FAILURES}"]
    command += [TESTS / "api_resources" / suite for suite in SUITES]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("OPENAI_", "PYTEST_"))}
    env |= {"TEST_API_BASE_URL": base_url, "PYTHONDONTWRITEBYTECODE": "1"}
    logged = len(mock.output())
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if os.environ.get("CONFORMANCE_SHOW"):
        sys.stderr.write(done.stdout)
    assert report.exists(), done.stdout + done.stderr
    endings: dict[str, Counter[str]] = {suite: Counter() for suite in SUITES}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  pytest wrote it just now
        *path, _ = case.attrib["classname"].removeprefix("tests.api_resources.").split(".")
        endings["/".join(path) + ".py"][outcome(case)] += 1
    return Run(endings, Counter(f"{path} {without_ours(body)}" for path, body in SENT.findall(mock.output()[logged:])))


def without_ours(logged: str) -> str:
    """A body, less the two things that are for the gateway to say: the expert's model, and that usage is wanted."""
    body = json.loads(logged)
    body.pop("model", None)
    if body.get("stream"):
        body["stream_options"] = {**body.get("stream_options", {}), "include_usage": True}
    return json.dumps(body, sort_keys=True)


def outcome(case: ET.Element) -> str:
    return next((f"{child.tag}: {case.get('classname')}.{case.get('name')}" for child in case), "passed")
