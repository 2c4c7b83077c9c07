"""Token counts where no expert says them."""

import importlib.util
import subprocess
import sys

import pytest

from conclave.gateway.tokens import CHARS_PER_TOKEN, COUNTED_CHARS

COUNTED = """
import sys, socket
def refused(*_, **__): raise OSError("no network in this test")
socket.getaddrinfo = socket.create_connection = refused
from conclave.gateway.experts.litellm.runtime import load
from conclave.gateway.tokens import count
load()
print(count(""), count("hello world"), count("the " * 8192), count("the " * 80_000), count("a" * 100_000) > 0)
"""


def test_without_a_vocabulary_the_length_tells() -> None:
    """In a process of its own: another test of this one may have loaded litellm."""
    asked = "from conclave.gateway.tokens import count; print(*map(count, ('', 'a', 'four', 'fives', 'x' * 4000)))"
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.split() == ["0", "1", "1", "2", str(4000 // CHARS_PER_TOKEN)]


@pytest.mark.skipif(importlib.util.find_spec("litellm") is None, reason="the extra `providers` is not installed")
def test_with_litellm_tokens_are_counted_offline() -> None:
    """cl100k_base has `hello` and ` world`, and `the` with its space before it; a long text goes in proportion."""
    assert COUNTED_CHARS == 4 * 8192
    found = subprocess.run([sys.executable, "-c", COUNTED], capture_output=True, text=True, timeout=120, check=True)
    nothing, two, short, long, odd = found.stdout.split()[-5:]
    assert (nothing, two, odd) == ("0", "2", "True")
    assert int(short) == pytest.approx(8192, abs=2)
    assert int(long) == pytest.approx(80_000, rel=0.001)
