"""What the lean set-up is held to, one row a claim: against F in the same run, or a number.

The table and the chart show these rows.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from benchmarks.gateway.results import Results
from benchmarks.gateway.targets import CONCLAVE


class Bound(StrEnum):
    """How a limit is read."""

    AT_MOST_F = "<= {limit:g} F"
    AT_LEAST_F = ">= {limit:g} F"
    AT_MOST = "<= {limit:g} {unit}"
    NONE = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A metric as the table shows it. `limit` is the bound's number; rows without a bound are there to be compared."""

    metric: str
    label: str
    unit: str
    bound: Bound = Bound.NONE
    limit: float = 0.0

    @property
    def target(self) -> str:
        """The limit in words."""
        return self.bound.format(limit=self.limit, unit=self.unit)

    def held(self, results: Results, target: str = CONCLAVE) -> bool | None:
        """Whether the target keeps within the limit; None if there is no limit or nothing was measured."""
        ratio, value = results.to_reference(target, self.metric), results.median(target, self.metric)
        match self.bound:
            case Bound.AT_MOST_F if ratio is not None:
                return ratio <= self.limit
            case Bound.AT_LEAST_F if ratio is not None:
                return ratio >= self.limit
            case Bound.AT_MOST if value is not None:
                return value <= self.limit
        return None


CLAIMS: Final = (
    Claim("plain.c1.added_p50_ms", "plain: added p50, concurrency 1", "ms", Bound.AT_MOST_F, 2),
    Claim("plain.c1.added_p99_ms", "plain: added p99, concurrency 1", "ms"),
    Claim("plain.c1.cpu_ms", "plain: CPU per request, concurrency 1", "ms", Bound.AT_MOST_F, 2),
    Claim("plain.c16.cpu_ms", "plain: CPU per request, concurrency 16", "ms", Bound.AT_MOST_F, 2),
    Claim("plain.c1.per_s", "plain: requests/s, concurrency 1", "/s"),
    Claim("plain.c16.per_s", "plain: requests/s, concurrency 16", "/s", Bound.AT_LEAST_F, 0.5),
    Claim("stream.c1.added_p50_ms", "50-chunk stream: added p50, concurrency 1", "ms"),
    Claim("stream.c1.added_p99_ms", "50-chunk stream: added p99, concurrency 1", "ms"),
    Claim("stream.c1.cpu_ms", "CPU per 50-chunk stream, concurrency 1", "ms", Bound.AT_MOST_F, 2.5),
    Claim("stream.c16.cpu_ms", "CPU per 50-chunk stream, concurrency 16", "ms", Bound.AT_MOST_F, 2.5),
    Claim("stream.c1.per_s", "50-chunk streams/s, concurrency 1", "/s"),
    Claim("stream.c16.per_s", "50-chunk streams/s, concurrency 16", "/s"),
    Claim("paced.cpu_ms", "CPU per paced 50-chunk stream, 32 at once", "ms"),
    Claim("paced.ttft_p50_ms", "time to first token p50, 32 paced streams", "ms", Bound.AT_MOST_F, 2),
    Claim("paced.ttft_p99_ms", "time to first token p99, 32 paced streams", "ms"),
    Claim("paced.bursts_percent", "chunks that came in bursts, 32 paced streams", "%"),
    Claim("start.import_cpu_s", "import, CPU", "s", Bound.AT_MOST, 1),
    Claim("start.ready_s", "start to ready", "s", Bound.AT_MOST, 2),
    Claim("memory.idle_mb", "resident memory, idle", "MB", Bound.AT_MOST, 140),
    Claim("memory.peak_mb", "resident memory, peak", "MB"),
)
