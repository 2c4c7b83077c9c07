"""The openai client sends images and files to an expert that sees: what the expert gets, what the record keeps."""

import ast
import base64
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from documents import ORDER, comments, data_url, docx, gif, paragraph, pdf, png, text_chunk
from processes import Gateway, Process, config, launch


@pytest.fixture(scope="module")
def gateway(upstream: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """`echo` sees and reads, and answers what it was sent."""
    for name in ("PIL", "pypdf", "defusedxml"):
        pytest.importorskip(name, reason="the extra `ingest` is not installed")
    checks = [{"check": "hidden", "action": "redact"}, {"check": "secrets", "action": "annotate"}]
    settings = config(upstream.port, defences=checks)
    settings["policy"]["experts"]["echo"]["capabilities"] = ["images", "files", "audio"]
    process = launch(tmp_path_factory.mktemp("parts"), settings)
    yield process
    process.stop()


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client: openai.OpenAI, *parts: dict[str, Any]) -> tuple[list[Any], Any]:
    """What the expert was sent, and the answer."""
    content = [{"type": "text", "text": "What is this?"}, *parts]
    answer = client.chat.completions.with_raw_response.create(
        model="echo",
        messages=[{"role": "user", "content": content}],  # type: ignore[list-item,misc]
    )
    said = answer.parse().choices[0].message.content
    assert said is not None
    return ast.literal_eval(said.removeprefix("echo: ")), answer


def image(data: bytes, declared: str = "image/png") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(declared, data)}}


def test_an_image_and_a_file_arrive_the_image_without_what_hid_in_it(client: openai.OpenAI, gateway: Gateway) -> None:
    paper = {"type": "file", "file": {"filename": "a.pdf", "file_data": data_url("application/pdf", pdf(["Hello"]))}}
    sent, answer = ask(client, image(png(30, 20, text_chunk(ORDER)) + b"PK\x03\x04behind"), paper)
    picture = base64.b64decode(sent[1]["image_url"]["url"].partition(",")[2])
    assert picture.startswith(b"\x89PNG")
    assert ORDER.encode() not in picture
    assert b"PK" not in picture
    assert sent[2] == paper
    row = gateway.row(answer.headers["x-request-id"])
    assert [(part["kind"], part["did"]) for part in row["parts"]] == [
        ("image/png", "reencoded"),
        ("application/pdf", "read"),
    ]
    assert (row["parts"][0]["width"], row["parts"][0]["height"], row["parts"][1]["chars"]) == (30, 20, len("Hello"))
    assert [segment["origin"] for segment in row["segments"]][-2:] == ["image", "file"]
    kept = json.dumps(row)
    assert ORDER not in kept
    assert "Hello" not in kept


def test_a_stream_is_asked_with_an_image_too(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="echo",
            messages=[{"role": "user", "content": [image(png())]}],  # type: ignore[list-item,misc]
            stream=True,
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices).startswith("echo:")


def test_words_that_hide_in_a_document_are_cut_out_and_its_text_goes_in_its_place(client: openai.OpenAI) -> None:
    unseen = "".join(chr(0xE0000 + ord(character)) for character in ORDER)
    paper = docx(paragraph(f"Dear all{unseen}"), {"word/comments.xml": comments("a note")})
    sent, answer = ask(client, {"type": "file", "file": {"filename": "a.docx", "file_data": data_url("", paper)}})
    assert sent[1]["type"] == "text"
    assert "Dear all[hidden removed]" in sent[1]["text"]
    assert "hidden.tags" in answer.headers["x-conclave-findings"]


@pytest.mark.parametrize(
    ("part", "status", "kind"),
    [
        (image(png(40_000, 40_000, rows=b"")), 413, "part.bomb"),
        (image(gif(10_000), "image/gif"), 413, "part.bomb"),
        (image(b"<svg/>"), 400, "part.mismatch"),
        ({"type": "image_url", "image_url": {"url": "http://169.254.169.254/a.png"}}, 403, "part.remote"),
        (
            {"type": "file", "file": {"filename": "a.zip", "file_data": data_url("", b"PK\x03\x04")}},
            400,
            "part.unknown_type",
        ),
    ],
    ids=["pixels", "frames", "svg", "inside", "zip"],
)
def test_what_is_refused_is_refused_once_and_recorded(
    client: openai.OpenAI, gateway: Gateway, part: dict[str, Any], status: int, kind: str
) -> None:
    with pytest.raises(openai.APIStatusError) as error:
        ask(client, part)
    headers = error.value.response.headers
    assert (error.value.status_code, headers["x-should-retry"]) == (status, "false")
    assert headers["x-conclave-findings"] == kind
    assert error.value.param == "messages[0].content[1]"
    row = gateway.row(headers["x-request-id"])
    assert (row["ending"], row["attempts"], row["verdict"]["action"]) == ("refused", [], "block")
    assert [(found["check"], found["kind"]) for found in row["verdict"]["findings"]] == [("parts", kind)]


def test_a_worker_process_that_is_killed_is_replaced(client: openai.OpenAI, gateway: Gateway) -> None:
    """By somebody, or for want of memory: the next image has another."""
    ask(client, image(png(7, 7)))
    workers = [process for process in children(gateway) if "conclave.retrieval.worker" in command(process)]
    assert workers
    for process in workers:
        os.kill(process, signal.SIGKILL)
    assert ask(client, image(png(8, 8)))[0][1]["type"] == "image_url"


def children(gateway: Gateway) -> list[int]:
    assert gateway.running is not None
    tasks = Path(f"/proc/{gateway.running.pid}/task")
    return [int(one) for task in tasks.iterdir() for one in (task / "children").read_text().split()]


def command(process: int) -> str:
    return Path(f"/proc/{process}/cmdline").read_text()
