"""A process that dies, hangs, eats memory or lies costs one job, and the next one goes well."""

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from conclave.retrieval.blocks import Parsed
from conclave.retrieval.worker import Bounds, WorkerFailed, Workers

RUN, VALUE = "builtins:exec", "builtins:eval"  # code is what a job can do worst
CAPS = {"most_chars": 100, "most_pages": 1, "most_bytes": 100}


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(Bounds(memory_bytes=2**29, cpu_s=1))
    yield made
    made.close()


def value(workers: Workers, code: str) -> Any:
    return workers.run(VALUE, code.encode(), {}, returns=object, limit_s=10)


def failure(workers: Workers, code: str, *, limit_s: float = 10) -> str:
    with pytest.raises(WorkerFailed) as error:
        workers.run(RUN, code.encode(), {}, returns=object, limit_s=limit_s)
    assert value(workers, "1 + 1") == 2, "the next job goes well"
    return error.value.failure


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "died"),
        ("import ctypes; ctypes.string_at(0)", "died"),
        ("import os; os._exit(0)", "died"),
        ("while True: pass", "died"),
        ("import os; os.write(0, b'x' * 8)", "died"),
        ("import os; os.write(0, bytes(7) + b'\\x03' + b'abc')", "died"),
        ("x = bytearray(2 ** 30)", "memory"),
        ("f = lambda f: f(f)\nf(f)", "memory"),
        ("raise KeyError('what it read')", "broke"),
        ("import tempfile; tempfile.TemporaryFile(buffering=0).write(b'x')", "broke"),
    ],
    ids=["killed", "crashed", "left", "endless", "huge reply", "nonsense", "memory", "recursion", "exception", "file"],
)
def test_a_job_that_fails_says_how_and_hinders_no_other(workers: Workers, code: str, how: str) -> None:
    assert failure(workers, code) == how


def test_a_job_that_hangs_is_late_when_its_time_is_up(workers: Workers) -> None:
    value(workers, "0")
    started_s = time.monotonic()
    with pytest.raises(WorkerFailed) as error:
        workers.run(RUN, b"import time; time.sleep(60)", {}, returns=object, limit_s=0.2)
    assert error.value.failure == "late"
    assert time.monotonic() - started_s < 5
    assert value(workers, "1 + 1") == 2


def test_a_process_that_is_killed_from_outside_is_replaced(workers: Workers) -> None:
    first = value(workers, "__import__('os').getpid()")
    assert value(workers, "__import__('os').getpid()") == first, "one process does many jobs"
    os.kill(first, 9)
    assert value(workers, "1 + 1") == 2


def test_an_exception_does_not_say_what_was_read(workers: Workers) -> None:
    with pytest.raises(WorkerFailed) as error:
        workers.run(RUN, b"raise ValueError('secret')", {}, returns=object, limit_s=10)
    assert (error.value.kind, error.value.message) == ("ValueError", "")


def test_a_job_may_refuse_with_words_of_its_own(workers: Workers) -> None:
    with pytest.raises(WorkerFailed) as error:
        workers.run("conclave.retrieval.parse:parse", b"", {"media_type": "x/y", **CAPS}, returns=Parsed, limit_s=10)
    assert (error.value.failure, error.value.kind) == ("refused", "unknown_type")
    assert "this type" in error.value.message


def test_nothing_of_our_environment_is_in_there(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert set(value(workers, "list(__import__('os').environ)")) <= {"LC_CTYPE"}
    assert value(workers, "__import__('os').getcwd()") == "/"


def test_an_answer_of_another_shape_is_no_answer(workers: Workers) -> None:
    with pytest.raises(WorkerFailed) as error:
        workers.run(VALUE, b"'text'", {}, returns=int, limit_s=10)
    assert error.value.failure == "died"


def test_threads_have_a_process_each(workers: Workers) -> None:
    gate = threading.Barrier(2, timeout=10)
    found: list[int] = []

    def job() -> None:
        gate.wait()
        found.append(value(workers, "(__import__('time').sleep(0.1), __import__('os').getpid())[1]"))

    threads = [threading.Thread(target=job) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 2


def test_after_closing_no_process_is_left() -> None:
    made = Workers()
    pid = value(made, "__import__('os').getpid()")
    made.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
