"""The clock of the first token: it counts content chunks and sees those that were held back."""

import pytest

from benchmarks.gateway.mock import CHUNKS, Pace, listen
from benchmarks.gateway.rounds import summary
from benchmarks.gateway.servers import TargetError
from benchmarks.gateway.targets import Target
from benchmarks.gateway.ttft import Stream, waves


async def test_every_content_chunk_of_every_stream_is_timed() -> None:
    server = await listen(0, Pace(0.001))
    async with server:
        target = Target("mock", (), server.sockets[0].getsockname()[1])
        streams = await waves(target, seconds=0.1, streams=3)
    assert streams
    assert {len(stream.arrivals_s) for stream in streams} == {CHUNKS}
    assert all(0 < stream.first_s < stream.arrivals_s[-1] for stream in streams)
    assert all(gap >= 0 for stream in streams for gap in stream.gaps_s)


def test_chunks_that_come_together_are_bursts() -> None:
    even = Stream([0.001, 0.006, 0.011], 200)
    held_back = Stream([0.011, 0.011, 0.011], 200)
    assert summary([even])["bursts_percent"] == 0
    assert summary([held_back])["bursts_percent"] == 100
    assert summary([even, held_back])["bursts_percent"] == 50


def test_a_stream_without_content_is_an_error() -> None:
    """A gateway that refuses quickly must not look fast."""
    with pytest.raises(TargetError, match="429"):
        summary([Stream([0.001], 200), Stream([], 429)])
