"""Cuts a stream of server-sent events into the payloads of its `data:` lines, for the reader of an upstream.

The payloads' bytes are never touched and never parsed here. Comments, other fields, a byte order mark and events
without data are dropped; lines may end in LF, CRLF or CR (WHATWG HTML, "9.2.6 Interpreting an event stream").
"""

from typing import Final

from conclave.gateway.errors import ExpertFailed

EVENT_BYTES: Final = 4 * 1024 * 1024  # an event that has not ended by then never will
BOM: Final = b"\xef\xbb\xbf"
LF: Final = 10
USUAL: Final = b"data: "
BETWEEN: Final = b"\n\ndata: "


class EventSplitter:
    """Fed with bytes as they come, in pieces of any size, it gives the payloads that are whole."""

    __slots__ = ("_after_cr", "_begun", "_clean", "_limit_bytes", "_pending", "_pending_bytes")

    def __init__(self, *, limit_bytes: int = EVENT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._pending: list[bytes] = []  # the pieces of an unfinished event: joined once, when its end has come
        self._pending_bytes = 0
        self._begun = False
        self._after_cr = False
        self._clean = False  # nothing is left over from what came before

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that end in these bytes. Raises ExpertFailed if an event grows past the limit."""
        if self._clean and data.endswith(b"\n\n") and b"\r" not in data:
            return _payloads(data[:-2])  # whole events: nearly always
        payloads = self._feed(data)
        self._clean = self._begun and not self._pending and not self._after_cr
        return payloads

    def _feed(self, data: bytes) -> list[bytes]:
        if not self._begun:
            data = self._without_bom(data)
        if self._after_cr or b"\r" in data:
            data = self._with_lf(data)
        if not data:
            return []
        if self._pending:
            if b"\n\n" not in data and not (data[0] == LF and self._pending[-1].endswith(b"\n")):
                self._keep(data)
                return []
            data = self._taken() + data
        end = data.rfind(b"\n\n")
        if end < 0:
            self._keep(data)
            return []
        if end + 2 != len(data):
            self._keep(data[end + 2 :])
        return _payloads(data[:end])

    def finish(self) -> bytes:
        """What an event without its closing empty line has said so far; nothing, if the stream ended as it should."""
        return _payload(b"".join(self._pending))

    def _keep(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes > self._limit_bytes:
            raise ExpertFailed("the expert sent an event without an end", kind="malformed")

    def _taken(self) -> bytes:
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        return data

    def _without_bom(self, data: bytes) -> bytes:
        """The stream's beginning less its byte order mark; nothing while that may still be coming."""
        data = self._taken() + data
        if len(data) < len(BOM) and BOM.startswith(data):
            self._keep(data)
            return b""
        self._begun = True
        return data.removeprefix(BOM)

    def _with_lf(self, data: bytes) -> bytes:
        """Every line end as LF. A CR ends its line at once; an LF that follows it in the next read is dropped then."""
        if not data:
            return data
        if self._after_cr and data[0] == LF:
            data = data[1:]
            self._after_cr = False
            if not data:
                return data
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _payloads(events: bytes) -> list[bytes]:
    """The payloads of whole events, less the last one's empty line."""
    if events.startswith(USUAL):
        payloads = events[6:].split(BETWEEN)
        if events.count(b"\n") == 2 * (len(payloads) - 1) and all(payloads):
            return payloads  # each event is one `data: ` line: nearly always, and a third of the other way's cost
    return [payload for event in events.split(b"\n\n") if (payload := _payload(event))]


def _payload(event: bytes) -> bytes:
    """The values of the event's `data` lines, joined by newlines."""
    values = []
    for line in event.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            values.append(value.removeprefix(b" "))
    return b"\n".join(values)
