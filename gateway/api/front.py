"""What stands before the pipeline, the same for every dialect: whom a request comes from, what a web page may read, and
whether there is room for one more. Put together from the settings; it opens nothing.
"""

from dataclasses import dataclass, field

from conclave.gateway.access.proxies import Proxies
from conclave.gateway.access.room import Room
from conclave.gateway.api.cors import Cors
from conclave.gateway.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class Front:
    """By default: every peer is a source, no web page reads an answer, and there is room."""

    cors: Cors = field(default_factory=Cors)
    proxies: Proxies = field(default_factory=Proxies)
    room: Room = field(default_factory=Room)
    spans: bool = False  # whether calls have spans

    @classmethod
    def of(cls, server: ServerSettings) -> "Front":
        return cls(
            cors=Cors(server.cors.origins, max_age_s=server.cors.max_age_s),
            proxies=Proxies(server.trusted_proxies, header=server.forwarded_header),
            room=Room(max_calls=server.max_calls, max_queue=server.max_queue, max_wait_s=server.max_queue_s),
            spans=server.telemetry.spans,
        )
