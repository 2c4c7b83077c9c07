"""litellm is imported by the first call that needs it, beside the event loop, and then keeps quiet."""

import asyncio
import json
import subprocess
import sys

import pytest

from conclave.gateway.errors import ExpertFailed
from conclave.gateway.experts.litellm.chunks import Writer
from conclave.gateway.experts.litellm.runtime import INSTALL, Runtime

from .provider_wire import needs_litellm

BESIDE = """
import asyncio, json, os, socket, sys, time
from conclave.gateway.experts import configured, litellm_expert
from conclave.gateway.experts.litellm import anthropic, gemini, general
from conclave.gateway.experts.litellm.runtime import Runtime

reached = []
def refused(*address, **_):
    reached.append(str(address))
    raise OSError("no network in this test")
socket.getaddrinfo = socket.create_connection = refused

async def main():
    before, runtime, ticks = "litellm" in sys.modules, Runtime(), 0
    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1
    ticking = asyncio.create_task(tick())
    first, second = await asyncio.gather(runtime.litellm(), runtime.litellm())
    ticking.cancel()
    import litellm
    said = {name: getattr(litellm, name) for name in ("num_retries", "success_callback", "drop_params", "set_verbose")}
    print(json.dumps({"before": before, "ticks": ticks, "one": first is second, "reached": reached, "said": said}))

asyncio.run(main())
"""


@needs_litellm
def test_the_import_waits_for_the_first_call_and_the_loop_goes_on_meanwhile(tmp_path: object) -> None:
    """No address is looked up, nothing is printed, a `.env` file is not read."""
    folder = str(tmp_path)
    with open(f"{folder}/.env", "w", encoding="utf-8") as file:
        file.write("HTTPS_PROXY=http://evil.example\n")
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", BESIDE], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["ticks"] >= 20, "a loop that stood still during the import would have ticked once or twice"
    assert (told["before"], told["one"], told["reached"]) == (False, True, [])
    assert told["said"] == {"num_retries": 0, "success_callback": [], "drop_params": False, "set_verbose": False}


async def test_without_litellm_a_call_fails_over_and_the_log_says_what_to_install(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def absent() -> object:
        raise ModuleNotFoundError("No module named 'litellm'")

    runtime = Runtime(absent)  # type: ignore[arg-type]  it never returns
    for _ in range(2):
        with pytest.raises(ExpertFailed) as failed:
            await runtime.litellm()
        assert (failed.value.kind, failed.value.final) == ("connect", False)
    assert INSTALL in capsys.readouterr().out


async def test_a_caller_that_gives_up_does_not_end_the_import_for_the_others() -> None:
    go_on = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow() -> object:
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(10)
        return sys

    runtime = Runtime(slow)  # type: ignore[arg-type]  any module will do
    first, second = asyncio.create_task(runtime.litellm()), asyncio.create_task(runtime.litellm())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go_on.set()
    assert await second is sys


def test_text_is_written_as_json_whatever_it_holds() -> None:
    writer = Writer('a"b', "m\n", created=5)
    for text in ("", 'quote " and \\ and \n', "\u2028\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")):
        event = writer.text(text).event
        assert event["choices"] == [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
        assert (event["id"], event["model"], event["created"]) == ('a"b', "m\n", 5)
