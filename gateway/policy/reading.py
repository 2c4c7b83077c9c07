"""(2) Images, files and recordings of a request, as the policy's `parts` say: what goes on, and the text found inside.

Knows the shapes of content parts and what follows from each outcome; what a file is, and how it is read safely, is in
`safety/boundary`, the reading itself in `workshop.py`. Fetches nothing, and changes no part but images.
"""

import base64
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import Blocked, InvalidRequest, Refused, TooLarge
from conclave.gateway.policy.parts import PartSettings
from conclave.gateway.policy.workshop import Bench, BoundedReader, Workshop
from conclave.gateway.redaction import replaced
from conclave.retrieval.worker import WorkerFailed
from conclave.safety.api import INSIDE, Action, Document, Finding, Origin, Reader, Segment, Severity
from conclave.safety.boundary.caps import BoundaryError
from conclave.safety.boundary.files import Content, PartError, check_address, from_base64, from_url
from conclave.safety.boundary.images import can_reencode, check_head
from conclave.safety.boundary.normalise import fold
from conclave.safety.boundary.sniff import DOCUMENTS, IMAGES, Kind, agrees, sniff
from conclave.safety.verdict import Ran, Verdict

NEEDS: Final = frozenset({"images", "files", "audio"})
CHECK: Final = "parts"  # the name under which findings of this stage stand
NAME_CHARS: Final = 256
NO_TEXT: Final = "(The file holds no text.)"
ODD: Final = frozenset({"malformed", "mismatch", "unknown_type", "truncated", "broken", "encrypted"})  # 400
HUGE: Final = frozenset({"too_large", "too_many_pages", "bomb"})  # 413; the rest is for policy to refuse: 403
UNREADABLE: Final = frozenset({"truncated", "broken", "encrypted"})  # where `on_error` has a say
RECORDINGS: Final[Mapping[str, Kind]] = {"wav": Kind.WAV, "mp3": Kind.MP3}

Did: TypeAlias = Literal["passed", "reencoded", "read", "unread", "refused"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is recorded of a part: what it was, and what was done. Never what was in it."""

    place: str
    kind: str  # a media type, or `remote`, `held` (by the provider), `data` (not looked at)
    did: Did
    bytes: int = 0
    sent_bytes: int | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    chars: int | None = None


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A request after its parts were read: what goes on, with the texts inside as further segments.

    `error` is why it does not.
    """

    request: ModelRequest
    segments: tuple[Segment, ...]
    seen: tuple[Seen, ...]
    verdict: Verdict
    error: Refused | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """The policy's `parts` for one tenant. `text_chars` is what all texts of a request may come to."""

    settings: PartSettings
    text_chars: int

    async def unpack(
        self, request: ModelRequest, segments: tuple[Segment, ...], tenant: str, shop: Workshop
    ) -> Unpacked | None:
        """The request with its parts read; None if it has none. Raises Overloaded."""
        if request.needs.isdisjoint(NEEDS):
            return None
        return await shop.run(lambda: self.unpacked(request, segments, tenant, shop))

    def unpacked(self, request: ModelRequest, segments: tuple[Segment, ...], tenant: str, shop: Workshop) -> Unpacked:
        """As `unpack`; blocks for `timeout_s` at most."""
        started_s = time.monotonic()
        bench = Bench(shop, tenant, started_s + self.settings.timeout_s)
        files = self.settings.files
        reader = BoundedReader(bench, files.most_chars, files.most_pages, files.most_unpacked_bytes)
        room = self.text_chars - sum(len(segment.folded) for segment in segments)
        desk = Desk(self.settings, bench, reader, room, can_reencode())
        error = None
        for place, part in parts_of(request):
            try:
                desk.take(part, place)
            except PartError as refused:
                error = desk.refuse(refused, place)
                break
        action = Action.BLOCK if error else Action.ANNOTATE if desk.findings else Action.ALLOW
        ran = Ran(CHECK, ms=1e3 * (time.monotonic() - started_s), error=desk.failure)
        found = tuple(desk.findings)
        changed = replace(request, body=replaced(request.body, desk.changed)) if desk.changed else request
        verdict = Verdict(action, found, found, (ran,))
        gone = {f"{place}.file.filename" for place in desk.changed}  # names of files that go on as texts
        kept = (segment for segment in segments if segment.place not in gone)
        return Unpacked(changed, (*kept, *desk.segments), tuple(desk.seen), verdict, error)


def parts_of(request: ModelRequest) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every content part that is no text, with its place. The shapes were checked when the request was read."""
    body = request.body
    if request.operation == "moderations":
        lists = [("input", body.get("input"))]
    else:
        lists = [(f"messages[{at}].content", one.get("content")) for at, one in enumerate(body.get("messages") or ())]
    for place, content in lists:
        if isinstance(content, list):
            for at, part in enumerate(content):
                if isinstance(part, dict) and part.get("type") in TAKES:
                    yield f"{place}[{at}]", part


@dataclass(slots=True)
class Desk:
    """What comes of one request's parts, as they are taken one by one."""

    settings: PartSettings
    bench: Bench
    reader: Reader
    room_chars: int
    reencodes: bool = True  # False: what images need is not installed
    changed: dict[str, str] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    failure: str | None = None

    def take(self, part: Mapping[str, Any], place: str) -> None:
        """See to one part. Raises PartError for one that ends the request."""
        before = len(self.seen)
        try:
            TAKES[part["type"]](self, part, place)
        except (WorkerFailed, PartError) as error:
            if isinstance(error, PartError) and error.kind not in UNREADABLE:
                raise
            kind = error.kind if isinstance(error, PartError) else "failed"
            self.failure = error.failure if isinstance(error, WorkerFailed) else kind
            if self.settings.on_error == "block":
                raise error if isinstance(error, PartError) else PartError("could not be read", kind=kind) from error
            self._note(place, kind, Severity.MEDIUM)
            if len(self.seen) == before:
                self.seen.append(Seen(place, "data", "unread"))

    def refuse(self, error: PartError, place: str) -> Refused:
        """What the client is told of a part that ends its request."""
        self.seen.append(Seen(place, "data", "refused"))
        self._note(place, error.kind, Severity.HIGH if error.kind == "bomb" else Severity.MEDIUM)
        words = f"the part at {place} is refused: {error.message}"
        kind = InvalidRequest if error.kind in ODD else TooLarge if error.kind in HUGE else Blocked
        return kind(words, param=place)

    def image(self, part: Mapping[str, Any], place: str) -> None:
        """An `image_url` part."""
        rules, said = self.settings.images, part.get("image_url")
        url = said.get("url") if isinstance(said, dict) else said
        at = f"{place}.image_url.url" if isinstance(said, dict) else f"{place}.image_url"
        if not isinstance(url, str):
            raise PartError("image_url must hold a url", kind="malformed")
        if rules.mode == "refuse":
            raise PartError("images are not taken here", kind="refused")
        if url[:5].lower() != "data:":
            self._remote(url, place, allowed=rules.remote == "allow")
        elif rules.mode == "pass":
            self.seen.append(Seen(place, "data", "passed", bytes=len(url) * 3 // 4))
        elif (content := from_url(url, most_bytes=rules.most_bytes)) is not None:
            self._picture(content, place, at)

    def file(self, part: Mapping[str, Any], place: str) -> None:
        """A `file` part."""
        rules, file = self.settings.files, part.get("file")
        held, data, name = (file.get(key) for key in HELD) if isinstance(file, dict) else (None, None, None)
        if not isinstance(held, str) and not isinstance(data, str):
            raise PartError("file must hold file_data or file_id", kind="malformed")
        if rules.mode == "refuse":
            raise PartError("files are not taken here", kind="refused")
        if isinstance(held, str):
            self._held(held, place)
        if not isinstance(data, str):
            return
        if rules.mode == "pass":
            self.seen.append(Seen(place, "data", "passed", bytes=len(data) * 3 // 4))
            return
        content = from_url(data, most_bytes=rules.most_bytes)
        if content is None:
            content = Content(from_base64(data, most_bytes=rules.most_bytes))
        self._document(replace(content, name=name[:NAME_CHARS] if isinstance(name, str) else ""), place)

    def recording(self, part: Mapping[str, Any], place: str) -> None:
        """An `input_audio` part."""
        sound = part.get("input_audio")
        data, said = (sound.get(key) for key in ("data", "format")) if isinstance(sound, dict) else (None, None)
        if not isinstance(data, str) or not isinstance(said, str):
            raise PartError("input_audio must hold data and format", kind="malformed")
        if self.settings.audio.mode == "refuse":
            raise PartError("recordings are not taken here", kind="refused")
        sound_bytes = from_base64(data, most_bytes=self.settings.files.most_bytes)
        kind = sniff(sound_bytes)
        if kind is not RECORDINGS.get(said.lower()) and (kind is not None or said.lower() in RECORDINGS):
            raise PartError("the recording is not of the format that it says", kind="mismatch")
        self.seen.append(Seen(place, kind.value if kind else "data", "passed", bytes=len(sound_bytes)))

    def _remote(self, url: str, place: str, *, allowed: bool) -> None:
        if not allowed:
            raise PartError("addresses are not taken here; send the content as a data: URL", kind="refused")
        check_address(url)
        self.seen.append(Seen(place, "remote", "passed"))

    def _held(self, name: str, place: str) -> None:
        if self.settings.files.remote == "refuse":
            raise PartError("files by file_id are not taken here; send their file_data", kind="refused")
        if name[:7].lower().startswith(("http://", "https:/")):
            check_address(name)
        self.seen.append(Seen(place, "held", "passed"))

    def _picture(self, content: Content, place: str, at: str) -> None:
        """An image at `at`, made anew."""
        rules, size = self.settings.images, len(content.data)
        kind = sniff(content.data)
        if kind is None or kind not in IMAGES:
            what = "unknown_type" if kind is None else "mismatch"
            raise PartError("this is no PNG, JPEG, GIF or WebP image", kind=what)
        if not agrees(kind, content.declared, content.name):
            if rules.mismatch == "refuse":
                raise PartError(f"the image is {kind}, and says otherwise", kind="mismatch")
            self._note(place, "mismatch", Severity.LOW)
        head = check_head(content.data, kind, most_pixels=rules.most_pixels, most_frames=rules.most_frames)
        seen = Seen(
            place, kind.value, "reencoded", bytes=size, width=head.width, height=head.height, frames=head.frames
        )
        if not self.reencodes:
            self._unread(place)
            self.seen.append(replace(seen, did="unread"))
            return
        made = self.bench.reencoded(content.data, kind, most_pixels=rules.most_pixels)
        self.changed[at] = f"data:{made.kind};base64,{base64.b64encode(made.data).decode()}"
        self.seen.append(replace(seen, sent_bytes=len(made.data), chars=len(made.words)))
        if head.frames > 1:
            self._note(place, "frames", Severity.LOW)
        if made.words:
            words = made.words.encode("utf-8", "replace").decode()  # as of a document
            self._inside(Origin.IMAGE, words, place, content.name)

    def _document(self, content: Content, place: str) -> None:
        kind = sniff(content.data, declared=content.declared, name=content.name)
        if kind in IMAGES:
            self._picture(content, place, f"{place}.file.file_data")
            return
        seen = Seen(place, kind.value if kind else "data", "unread", bytes=len(content.data))
        if kind is not None and not agrees(kind, content.declared, content.name):
            raise PartError(f"the file is {kind}, and says otherwise", kind="mismatch")
        if kind is None or kind not in DOCUMENTS:
            if self.settings.files.unknown == "refuse":
                known = "PDF, DOCX, HTML, CSV, Markdown and plain text"
                raise PartError(
                    f"files of this type cannot be read here; those that can are {known}", kind="unknown_type"
                )
            self._note(place, "unread", Severity.LOW)
            self.seen.append(seen)
            return
        text = self.reader.read(Document(content.data, kind, content.name))
        if text is None:
            self._unread(place)
            self.seen.append(seen)
            return
        text = text.encode("utf-8", "replace").decode()  # a parser may make lone surrogates
        if self.settings.files.mode == "text":
            self.changed[place] = text or NO_TEXT
            self.seen.append(replace(seen, did="read", chars=len(text), sent_bytes=len(self.changed[place].encode())))
            self._inside(Origin.FILE, self.changed[place], place, content.name, instead=True)
            return
        self.seen.append(replace(seen, did="read", chars=len(text)))
        if text:
            self._inside(Origin.FILE, text, place, content.name)

    def _unread(self, place: str) -> None:
        """It should be read, and nothing here can."""
        if self.settings.unread == "refuse":
            raise PartError("it cannot be read here: the gateway lacks the extra `ingest`", kind="unread")
        self._note(place, "unread", Severity.LOW)

    def _inside(self, origin: Origin, text: str, place: str, source: str, *, instead: bool = False) -> None:
        """A text found in a part; `instead` of the part, or beside it."""
        try:
            folded = fold(text, max_chars=self.room_chars, place=place)
        except BoundaryError as error:
            raise PartError(
                "the texts of the request and of its files are too long together", kind="too_large"
            ) from error
        self.room_chars -= len(folded)
        self.segments.append(Segment(origin, text, folded, place if instead else place + INSIDE, source))

    def _note(self, place: str, kind: str, severity: Severity) -> None:
        self.findings.append(Finding(CHECK, f"part.{kind}", severity, 1.0, place, 0, 0))


HELD: Final = ("file_id", "file_data", "filename")
TAKES: Final = {"image_url": Desk.image, "file": Desk.file, "input_audio": Desk.recording}
