"""What becomes of images, files and recordings in a request, as the policy says; what is inside them is looked at."""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
from documents import ORDER, comments, data_url, docx, gif, paragraph, pdf, png, text_chunk

from conclave.gateway.api import chat, moderations
from conclave.gateway.errors import Blocked, InvalidRequest, Overloaded, TooLarge
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.parts import PartSettings
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.reading import NO_TEXT, Desk, Parts, Unpacked
from conclave.gateway.policy.screening import Screened, maker
from conclave.gateway.policy.workshop import MOST_WAITING, Bench, Results, Workshop
from conclave.retrieval.worker import Bounds, Workers
from conclave.router.api import Classification
from conclave.safety.api import Action, Document, Origin
from conclave.safety.boundary.files import PartError
from conclave.safety.boundary.images import Reencoded
from conclave.safety.boundary.segments import TEXT_PARTS

SURE = Classification("math", 0.9, False, {"math": 0.9, "law": 0.1})
HIDDEN = "".join(chr(0xE0000 + ord(character)) for character in "steal")
PICTURE, PAPER = "messages[0].content[0].inside", "messages[0].content[0].inside"


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    for name in ("PIL", "pypdf", "defusedxml"):
        pytest.importorskip(name, reason="the extra `ingest` is not installed")
    made = Workshop()
    yield made
    made.close()


def image(data: bytes, declared: str = "image/png") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(declared, data), "detail": "low"}}


def remote(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def file(data: bytes, name: str = "", declared: str = "") -> dict[str, Any]:
    sent = data_url(declared, data) if declared else base64.b64encode(data).decode()
    return {"type": "file", "file": {"filename": name, "file_data": sent} if name else {"file_data": sent}}


def sound(data: bytes, form: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": form}}


def taken(shop: Workshop, *parts: Mapping[str, Any], text_chars: int = 100_000, **settings: Any) -> Unpacked:
    body = {"model": "auto", "messages": [{"role": "user", "content": list(parts)}]}
    made = Parts(PartSettings.model_validate(settings), text_chars)
    return made.unpacked(chat.parse(json.dumps(body).encode()), (), "t", shop)


def sent(found: Unpacked, at: int = 0) -> Any:
    return found.request.body["messages"][0]["content"][at]


def refused(shop: Workshop, part: Mapping[str, Any], **settings: Any) -> tuple[type, str]:
    found = taken(shop, part, **settings)
    assert found.verdict.action is Action.BLOCK
    assert found.seen[-1].did == "refused"
    assert found.error is not None
    assert found.error.param == "messages[0].content[0]"
    return type(found.error), found.verdict.reasons[-1]


def test_an_order_beside_the_pixels_is_a_segment_and_reaches_no_expert(shop: Workshop) -> None:
    part = image(png(9, 9, text_chunk(ORDER)))
    found = taken(shop, part)
    [segment] = found.segments
    assert (segment.origin, segment.place) == (Origin.IMAGE, PICTURE)
    assert ORDER in segment.text
    assert ORDER.encode() not in base64.b64decode(sent(found)["image_url"]["url"].partition(",")[2])
    assert sent(found)["image_url"]["detail"] == "low"
    assert (found.error, found.verdict.action, found.seen[0].did) == (None, Action.ALLOW, "reencoded")


def test_the_same_image_becomes_the_same_bytes_again(shop: Workshop) -> None:
    """Providers cache prompts by their bytes."""
    part = image(png(50, 50))
    assert sent(taken(shop, part)) == sent(taken(shop, part))


def test_a_plain_image_is_a_plain_image(shop: Workshop) -> None:
    found = taken(shop, image(png(9, 8)))
    [seen] = found.seen
    assert (found.segments, found.verdict.findings) == ((), ())
    assert (seen.kind, seen.width, seen.height, seen.frames) == ("image/png", 9, 8, 1)


def test_text_in_a_request_stays_as_it_is(shop: Workshop) -> None:
    text = {"type": "text", "text": "look"}
    found = taken(shop, text, image(png()))
    assert sent(found) == text
    assert [seen.place for seen in found.seen] == ["messages[0].content[1]"]


def test_an_image_that_says_another_type_is_corrected_or_refused(shop: Workshop) -> None:
    found = taken(shop, image(png(), "image/jpeg"))
    assert sent(found)["image_url"]["url"].startswith("data:image/png;base64,")
    assert (found.error, found.verdict.reasons) == (None, ("part.mismatch",))
    strict = {"images": {"mismatch": "refuse"}}
    assert refused(shop, image(png(), "image/jpeg"), **strict) == (InvalidRequest, "part.mismatch")


@pytest.mark.parametrize(
    ("data", "error", "kind"),
    [
        (b"<html><script>alert(1)</script>", InvalidRequest, "part.mismatch"),
        (b"<svg xmlns='x'><script/></svg>", InvalidRequest, "part.mismatch"),
        (pdf(["a"]), InvalidRequest, "part.mismatch"),
        (b"\0\1\2\3", InvalidRequest, "part.unknown_type"),
        (png(40_000, 40_000, rows=b""), TooLarge, "part.bomb"),
        (gif(10_000), TooLarge, "part.bomb"),
        (png(60, 40)[:-30], InvalidRequest, "part.truncated"),
        (png()[:20], InvalidRequest, "part.truncated"),
        (png() + bytes(3_000), TooLarge, "part.too_large"),
    ],
    ids=["html", "svg", "pdf", "unknown", "pixels", "frames", "cut", "no head", "large"],
)
def test_what_is_no_sound_image_is_refused(shop: Workshop, data: bytes, error: type, kind: str) -> None:
    size = 2_000 if kind == "part.too_large" else 16_000_000
    assert refused(shop, image(data), images={"most_bytes": size}) == (error, kind)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url"},
        {"type": "image_url", "image_url": None},
        {"type": "image_url", "image_url": {}},
        {"type": "image_url", "image_url": {"url": 3}},
        {"type": "image_url", "image_url": {"url": "data:image/png,abc"}},
        {"type": "image_url", "image_url": {"url": ["data:"]}},
        {"type": "file"},
        {"type": "file", "file": "x"},
        {"type": "file", "file": {"filename": "a"}},
        {"type": "file", "file": {"file_data": 1}},
        {"type": "file", "file": {"file_data": "\u00e9"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA"}},
        {"type": "input_audio", "input_audio": 1},
    ],
    ids=str,
)
def test_a_part_of_a_wrong_shape_is_refused(shop: Workshop, part: Mapping[str, Any]) -> None:
    assert refused(shop, part) == (InvalidRequest, "part.malformed")


def test_an_address_passes_and_is_never_fetched(shop: Workshop) -> None:
    part = remote("https://example.com/a.png")
    found = taken(shop, part)
    assert (sent(found), found.error, found.seen[0].kind) == (part, None, "remote")


def test_an_image_url_may_be_a_plain_text(shop: Workshop) -> None:
    found = taken(shop, {"type": "image_url", "image_url": data_url("image/png", png(3, 3, text_chunk(ORDER)))})
    assert ORDER in found.segments[0].text
    assert found.seen[0].did == "reencoded"


@pytest.mark.parametrize("mode", ["pass", "reencode"])
@pytest.mark.parametrize("url", ["http://example.com/a.png", "https://169.254.169.254/a", "file:///etc/passwd"])
def test_an_address_that_leads_inside_is_refused_whatever_the_mode(shop: Workshop, mode: str, url: str) -> None:
    assert refused(shop, remote(url), images={"mode": mode}) == (Blocked, "part.remote")


def test_addresses_are_refused_where_policy_says_so(shop: Workshop) -> None:
    strict = {"remote": "refuse"}
    assert refused(shop, remote("https://example.com/a.png"), images=strict) == (Blocked, "part.refused")
    held = {"type": "file", "file": {"file_id": "file-1"}}
    assert refused(shop, held, files=strict) == (Blocked, "part.refused")
    assert taken(shop, held).seen[0].kind == "held"
    assert refused(shop, {"type": "file", "file": {"file_id": "https://10.0.0.1/a"}}) == (Blocked, "part.remote")


@pytest.mark.parametrize(
    ("part", "about"),
    [(image(png()), "images"), (file(b"abc", "a.txt"), "files"), (sound(b"ID3", "mp3"), "audio")],
    ids=["image", "file", "audio"],
)
def test_parts_are_refused_or_passed_unread_as_policy_says(shop: Workshop, part: Mapping[str, Any], about: str) -> None:
    assert refused(shop, part, **{about: {"mode": "refuse"}}) == (Blocked, "part.refused")
    found = taken(shop, part, **{about: {"mode": "pass"}})
    assert (sent(found), found.segments, found.seen[0].did) == (part, (), "passed")


@pytest.mark.parametrize(
    "part",
    [
        file(docx(paragraph("fine"), {"word/comments.xml": comments(ORDER)}), "a.docx"),
        file(docx(paragraph(ORDER, "<w:vanish/>")), "a.docx"),
        file(pdf(["fine"], note=ORDER), "a.pdf"),
        file(pdf([ORDER]), "a.pdf", "application/pdf"),
        file(f"<p>fine<!-- {ORDER} -->".encode(), "a.html"),
        file(f"name,note\na,{ORDER}\n".encode(), "a.csv", "text/csv"),
        file(f"# fine\n\n{ORDER}".encode(), "a.md"),
        file(ORDER.encode(), "a.txt"),
    ],
    ids=["comment", "hidden", "note", "pdf", "html", "csv", "markdown", "text"],
)
def test_an_order_in_a_document_is_data_of_that_file(shop: Workshop, part: Mapping[str, Any]) -> None:
    found = taken(shop, part)
    [segment] = found.segments
    assert ORDER in segment.text
    assert (segment.origin, segment.place, segment.source) == (Origin.FILE, PAPER, part["file"]["filename"])
    assert (sent(found), found.seen[0].did, found.error) == (part, "read", None)


def test_an_image_that_comes_as_a_file_is_an_image(shop: Workshop) -> None:
    found = taken(shop, file(png(9, 9, text_chunk(ORDER)), "a.png"))
    assert found.segments[0].origin is Origin.IMAGE
    assert sent(found)["file"]["file_data"].startswith("data:image/png;base64,")
    assert refused(shop, file(png(40_000, 40_000, rows=b""), "a.png")) == (TooLarge, "part.bomb")


@pytest.mark.parametrize(
    ("part", "error", "kind"),
    [
        (file(pdf(["a"]), "a.docx"), InvalidRequest, "part.mismatch"),
        (file(b"<html>", "a.pdf", "application/pdf"), InvalidRequest, "part.mismatch"),
        (file(b"PK\x03\x04", "a.zip"), InvalidRequest, "part.unknown_type"),
        (file(b"<svg/>", "a.svg"), InvalidRequest, "part.unknown_type"),
        (file(b"MZ\x90\0", "a.txt"), InvalidRequest, "part.unknown_type"),
        (file(b"%PDF-1.7 nothing", "a.pdf"), InvalidRequest, "part.broken"),
        (file(pdf(["x"] * 501), "a.pdf"), TooLarge, "part.too_many_pages"),
        (file(b"x" * 5_001, "a.txt"), TooLarge, "part.too_large"),
        (file(docx("", {"word/media/a.bin": bytes(30_000_000)}), "a.docx"), TooLarge, "part.bomb"),
    ],
    ids=["pdf as docx", "html as pdf", "zip", "svg", "program", "broken", "pages", "chars", "bomb"],
)
def test_what_is_no_sound_document_is_refused(shop: Workshop, part: Mapping[str, Any], error: type, kind: str) -> None:
    assert refused(shop, part, files={"most_chars": 5_000}) == (error, kind)


def test_types_that_nothing_reads_pass_where_policy_says_so(shop: Workshop) -> None:
    part = file(b"PK\x03\x04", "a.zip")
    found = taken(shop, part, files={"unknown": "allow"})
    assert (sent(found), found.error, found.verdict.reasons) == (part, None, ("part.unread",))
    assert found.verdict.action is Action.ANNOTATE


def test_all_texts_of_a_request_share_their_cap(shop: Workshop) -> None:
    part = file(b"x" * 600, "a.txt")
    assert taken(shop, part, text_chars=600).error is None
    assert isinstance(taken(shop, part, part, text_chars=1_000).error, TooLarge)


@pytest.mark.parametrize(
    ("data", "form", "fine"),
    [
        (b"RIFF\x24\0\0\0WAVEfmt ", "wav", True),
        (b"ID3\x04", "mp3", True),
        (b"fLaC\0\0\0\x22", "flac", True),
        (b"RIFF\x24\0\0\0WAVEfmt ", "mp3", False),
        (b"\0\1\2\3", "wav", False),
        (b"%PDF-1.7", "flac", False),
    ],
    ids=["wav", "mp3", "another", "wav as mp3", "unknown as wav", "pdf as flac"],
)
def test_a_recording_is_what_it_says(shop: Workshop, data: bytes, form: str, fine: bool) -> None:
    if fine:
        assert taken(shop, sound(data, form)).seen[0].did == "passed"
    else:
        assert refused(shop, sound(data, form)) == (InvalidRequest, "part.mismatch")


class Killing(Workers):
    """Ends its process in the middle of each job."""

    code: ClassVar[bytes] = b"import os, signal; os.kill(os.getpid(), signal.SIGKILL)"

    def run(self, call: str, data: bytes, options: dict[str, Any], **more: Any) -> Any:
        return Workers.run(self, "builtins:exec", self.code, {}, **more)


class Hanging(Killing):
    code = b"import time; time.sleep(60)"


@pytest.mark.parametrize(
    "workers", [Killing(), Hanging(), Killing(Bounds(memory_bytes=1))], ids=["dies", "hangs", "no memory"]
)
@pytest.mark.parametrize("part", [image(png()), file(pdf(["a"]), "a.pdf")], ids=["image", "file"])
def test_a_worker_that_dies_means_what_policy_says(workers: Workers, part: Mapping[str, Any]) -> None:
    shop = Workshop(workers)
    began_s = time.monotonic()
    assert refused(shop, part, timeout_s=0.5) == (Blocked, "part.failed")
    found = taken(shop, part, timeout_s=0.5, on_error="allow")
    assert (sent(found), found.error, found.verdict.reasons) == (part, None, ("part.failed",))
    assert found.verdict.ran[0].error in {"died", "late"}
    assert [seen.did for seen in found.seen] == ["unread"]
    assert time.monotonic() - began_s < 5
    shop.close()


def test_all_parts_of_a_request_have_one_time_limit() -> None:
    shop = Workshop(Hanging())
    began_s = time.monotonic()
    found = taken(shop, *(image(png(number, 1)) for number in range(1, 9)), timeout_s=0.4, on_error="allow")
    assert time.monotonic() - began_s < 3
    assert [seen.did for seen in found.seen] == ["unread"] * 8
    shop.close()


def test_a_broken_document_passes_where_failures_do(shop: Workshop) -> None:
    part = file(b"%PDF-1.7 nothing", "a.pdf")
    found = taken(shop, part, on_error="allow")
    assert (sent(found), found.error, found.verdict.reasons) == (part, None, ("part.broken",))


class Blind:
    """A reader for a gateway without the extra `ingest`."""

    def read(self, document: Document) -> str | None:
        return None


@pytest.mark.parametrize("part", [image(png(5, 4)), file(pdf(["a"]), "a.pdf")], ids=["image", "file"])
def test_without_the_extra_a_part_goes_on_unread_or_is_refused(shop: Workshop, part: Mapping[str, Any]) -> None:
    def desk(**settings: Any) -> Desk:
        bench = Bench(shop, "t", time.monotonic() + 5)
        return Desk(PartSettings.model_validate(settings), bench, Blind(), 1_000, reencodes=False)

    lenient, strict = desk(), desk(unread="refuse")
    lenient.take(part, "p")
    assert (lenient.changed, lenient.segments, lenient.seen[0].did) == ({}, [], "unread")
    assert [found.kind for found in lenient.findings] == ["part.unread"]
    with pytest.raises(PartError) as error:
        strict.take(part, "p")
    assert isinstance(strict.refuse(error.value, "p"), Blocked)


def test_without_the_extra_a_bomb_is_seen_by_its_head(shop: Workshop) -> None:
    desk = Desk(PartSettings(), Bench(shop, "t", time.monotonic() + 5), Blind(), 1_000, reencodes=False)
    with pytest.raises(PartError) as error:
        desk.take(image(png(40_000, 40_000, rows=b"")), "p")
    assert error.value.kind == "bomb"


async def test_a_request_without_parts_is_left_alone(shop: Workshop) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
    found = await Parts(PartSettings(), 100).unpack(chat.parse(json.dumps(body).encode()), (), "t", shop)
    assert found is None


async def test_what_is_judged_by_moderations_is_read_too(shop: Workshop) -> None:
    body = {"model": "auto", "input": [{"type": "text", "text": "a"}, image(png(9, 9, text_chunk(ORDER)))]}
    request = moderations.parse(json.dumps(body).encode())
    found = await Parts(PartSettings(), 10_000).unpack(request, (), "t", shop)
    assert found is not None
    assert [segment.place for segment in found.segments] == ["input[1].inside"]


async def test_too_many_at_once_are_told_to_come_again(shop: Workshop) -> None:
    full = Workshop()
    full._waiting = MOST_WAITING
    with pytest.raises(Overloaded):
        await full.run(lambda: None)
    full._waiting -= 1
    assert await full.run(lambda: "free") == "free"
    assert full._waiting == MOST_WAITING - 1
    full.close()


def test_results_are_remembered_within_their_bytes_and_by_tenant() -> None:
    results, made = Results(most_bytes=25), list[str]()

    def make(name: str) -> Reencoded:
        made.append(name)
        return Reencoded(name.encode() * 10, "image/png", "")

    for name in ("a", "a", "b", "a", "c", "a", "b"):
        results.remembered("tenant", name.encode(), lambda name=name: make(name))  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]
    results.remembered("another", b"a", lambda: make("again"))
    assert made[-1] == "again"


def screened(shop: Workshop, part: Mapping[str, Any], **policy: Any) -> Screened:
    """A request through boundary and checks."""
    document = PolicyDocument.model_validate(policy)
    made = Version(document, Pool({}), classify=lambda _: SURE, model_digest="d", checks=maker(lambda _: [1, 2, 3]))
    found = taken(shop, part)
    return made.rules_for("t").screen(found.request, found.segments, "t")


def test_words_that_hide_in_a_document_are_found(shop: Workshop) -> None:
    found = screened(shop, file(f"fine {HIDDEN}".encode(), "a.txt"), defences=[{"check": "hidden", "action": "block"}])
    assert (found.verdict.action, found.verdict.reasons) == (Action.BLOCK, ("hidden.tags",))


def test_a_file_with_something_to_redact_becomes_its_text_without_it(shop: Workshop) -> None:
    checks = [{"check": "hidden", "action": "redact"}]
    found = screened(shop, file(docx(paragraph(f"fine {HIDDEN}!")), "a.docx"), defences=checks)
    [part] = found.request.body["messages"][0]["content"]
    assert part == {"type": "text", TEXT_PARTS["text"]: "fine [hidden removed]!"}
    assert found.segments[0].place == "messages[0].content[0]"


def test_what_an_image_loses_anyway_needs_no_redacting(shop: Workshop) -> None:
    secret = "AKIA" + "Q7M2XK5WZP3LND4T"
    found = screened(
        shop, image(png(9, 9, text_chunk(f"key {secret} key"))), defences=[{"check": "secrets", "action": "redact"}]
    )
    assert found.verdict.action is Action.REDACT
    assert found.request.body["messages"][0]["content"][0]["type"] == "image_url"


def test_a_file_goes_on_as_its_text_where_policy_says_so(shop: Workshop) -> None:
    found = taken(shop, file(f"Bells\n{ORDER}".encode(), "a.txt"), files={"mode": "text"})
    [segment] = found.segments
    assert (segment.origin, segment.place) == (Origin.FILE, "messages[0].content[0]")
    assert sent(found) == {"type": "text", "text": segment.text}
    assert ORDER in segment.text


def test_an_image_that_comes_as_a_file_is_no_text(shop: Workshop) -> None:
    assert sent(taken(shop, file(png(), "a.png"), files={"mode": "text"}))["type"] == "file"


def test_a_file_that_cannot_be_read_does_not_go_on_as_text(shop: Workshop) -> None:
    assert refused(shop, file(b"%PDF-1.4 broken", "a.pdf"), files={"mode": "text"})[0] is InvalidRequest


def test_a_file_without_text_says_so(shop: Workshop) -> None:
    assert (
        sent(taken(shop, file(b"<html><body></body></html>", "a.html", "text/html"), files={"mode": "text"}))["text"]
        == NO_TEXT
    )
