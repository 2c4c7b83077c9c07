"""The whole way of a stream, from raw bytes of an upstream to what is shown: any damage, any cut, one record."""

import asyncio
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from conclave.gateway.call import END, Chunk
from conclave.gateway.errors import ConclaveError, ExpertFailed

from .experts.asking import expert_at
from .experts.raw_server import FINISH, SSE, USAGE, RawServer, data, piece
from .test_pipeline import House, request

WORDS = ("one ", "two ", "three ", "four")
STREAM = data(
    b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}',
    *(b'{"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}' % word.encode() for word in WORDS),
    FINISH,
    USAGE,
    b"[DONE]",
)


def shown_text(chunks: list[Chunk]) -> str:
    """The content of all choices that can be read as such."""
    found = []
    for chunk in chunks:
        if chunk is not END:
            for choice in chunk.event["choices"]:
                content = (choice.get("delta") or {}).get("content")
                found.append(content if isinstance(content, str) else "")
    return "".join(found)


async def through_the_gateway(body: bytes, places: list[int]) -> tuple[list[Chunk], ConclaveError | None, House]:
    """What a client is shown of `body`, sent in pieces that end at `places`."""
    edges = sorted({0, len(body), *(place for place in places if place < len(body))})
    script = [SSE, *(piece(body[a:b]) for a, b in pairwise(edges)), piece(b"")]
    chunks: list[Chunk] = []
    async with RawServer(script) as server, expert_at(server.url) as expert:
        house = House(expert, streams={"on_failure": "end"})  # what one upstream sends is looked at here
        try:
            await house.show(request(stream=True), chunks)
        except ConclaveError as error:
            return chunks, error, house
    return chunks, None, house


PLACES = st.lists(st.integers(1, len(STREAM)), max_size=8)


@settings(max_examples=40)
@given(places=PLACES, end=st.integers(0, len(STREAM)))
def test_a_stream_cut_anywhere_is_shown_as_a_beginning_or_whole(places: list[int], end: int) -> None:
    chunks, error, house = asyncio.run(through_the_gateway(STREAM[:end], places))
    text = shown_text(chunks)
    assert "".join(WORDS).startswith(text)
    assert (error is None) == (chunks[-1:] == [END])
    assert error is not None or text == "".join(WORDS)
    (record,) = house.records
    assert record.answered == (error is None)


@settings(max_examples=60)
@given(places=PLACES, at=st.integers(0, len(STREAM) - 1), damage=st.binary(max_size=20), gone=st.integers(0, 20))
def test_a_damaged_stream_ends_in_an_answer_or_a_clear_error(
    places: list[int], at: int, damage: bytes, gone: int
) -> None:
    body = STREAM[:at] + damage + STREAM[at + gone :]
    chunks, error, house = asyncio.run(through_the_gateway(body, places))
    assert error is None or not isinstance(error, ExpertFailed)
    assert error is None or (error.message and error.status in {400, 502})
    (record,) = house.records
    assert record.answered == (error is None) == (chunks[-1:] == [END])
    for chunk in chunks[:-1]:
        assert isinstance(chunk.event["choices"], list)
