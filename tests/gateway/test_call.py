"""Chunk, Vectors: what is read of an expert's bytes, and what is left as it came."""

import json
from typing import Any

import msgspec
import pytest

from conclave.gateway.call import LARGE_BYTES, Chunk, ModelRequest, Vectors, embedded
from conclave.gateway.errors import ExpertFailed
from conclave.gateway.reply import Reply
from conclave.gateway.usage import Usage

NUMBERS = [n / 8 for n in range(LARGE_BYTES // 4)]
ANSWER: dict[str, Any] = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": NUMBERS}],
    "model": "m",
    "usage": {"prompt_tokens": 3, "total_tokens": 3},
}


def written(**more: Any) -> bytes:
    return json.dumps(ANSWER | more).encode()


def shown(chunk: Chunk) -> tuple[Reply, dict[str, Any]]:
    """The reply, and what its client gets."""
    request = ModelRequest({"input": "a"}, "m", False, False, frozenset({"embeddings"}), "embeddings")
    reply = Reply(request, digest_key=b"k")
    assert list(reply.feed(chunk)) == []
    (out,) = reply.finish({"expert": "e"})
    return reply, json.loads(out.data)


def test_of_a_large_answer_all_is_read_but_the_vectors() -> None:
    chunk = embedded(written())
    assert isinstance(chunk.event["data"], msgspec.Raw)
    assert {name: value for name, value in chunk.event.items() if name != "data"} == {
        name: value for name, value in ANSWER.items() if name != "data"
    }


def test_vectors_that_nobody_reads_reach_the_client_whole() -> None:
    reply, got = shown(embedded(written()))
    assert got == ANSWER | {"conclave": {"expert": "e"}}
    assert (reply.model, reply.usage) == ("m", Usage(prompt_tokens=3))


def test_another_conclaves_word_about_itself_is_replaced_beside_unread_vectors() -> None:
    _, got = shown(embedded(written(conclave={"expert": "theirs"}, more=[1])))
    assert got == ANSWER | {"more": [1], "conclave": {"expert": "e"}}


def test_a_small_answer_is_read_whole() -> None:
    small = embedded(b'{"data":[{"embedding":[0.5]}]}')
    assert not isinstance(small, Vectors)
    assert small.event == {"data": [{"embedding": [0.5]}]}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(written().replace(b"1.5,", b"1.5,,"), id="no-number"),
        pytest.param(written().replace(b"1.5,", b"NaN,"), id="not-a-number"),
        pytest.param(written()[:-20], id="cut"),
        pytest.param(written(data="x" * LARGE_BYTES), id="a-text-for-vectors"),
        pytest.param(written(data={"a": NUMBERS}), id="an-object-for-vectors"),
        pytest.param(b"[%b]" % written(), id="a-list"),
        pytest.param(b'{"data":%b%b}' % (b"[" * LARGE_BYTES, b"]" * LARGE_BYTES), id="a-deep-list"),
    ],
)
def test_a_large_answer_that_is_none_is_malformed(data: bytes) -> None:
    with pytest.raises(ExpertFailed) as failure:
        shown(embedded(data))
    assert failure.value.kind == "malformed"
