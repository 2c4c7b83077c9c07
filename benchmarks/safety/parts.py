"""What reading an image or a document costs: the first time, and when a conversation is sent again.

    python -m benchmarks.safety.parts [--rounds N]

Images of 1000 x 1000 pixels (a soft noisy photo, a page of text) and documents of 20 pages, each round another one, so
that nothing is remembered but where it says `again`. Medians of wall time, and of CPU time in the gateway's own thread;
the rest is spent in the worker process. The kinds take turns within a round.
"""

import argparse
import base64
import io
import json
import statistics
import time
import zipfile
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageDraw

from conclave.gateway.api import chat
from conclave.gateway.call import ModelRequest
from conclave.gateway.policy.parts import PartSettings
from conclave.gateway.policy.reading import Parts
from conclave.gateway.policy.workshop import Workshop

SIZE = (1000, 1000)
WORDS = "The council met on Tuesday to discuss the new bridge, which cost 3.2 million so far; a vote is due in May. "
WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def photo() -> Image.Image:
    noise = Image.effect_noise(SIZE, 12).convert("RGB")
    return Image.blend(noise, Image.linear_gradient("L").resize(SIZE).convert("RGB"), 0.7)


def page() -> Image.Image:
    made = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(made)
    for line in range(60):
        draw.text((10, 16 * line), WORDS, fill="black")
    return made


def image(picture: Image.Image, form: str, number: int) -> dict[str, Any]:
    out = io.BytesIO()
    picture.point(lambda value: max(0, value - number)).save(out, form)
    url = f"data:image/{form.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def document(number: int) -> dict[str, Any]:
    """About 60,000 characters."""
    out = io.BytesIO()
    text = "".join(f"<w:p><w:r><w:t>{number}: {WORDS * 3}</w:t></w:r></w:p>" for _ in range(190))
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", f"<w:document {WORD}><w:body>{text}</w:body></w:document>")
    return {"type": "file", "file": {"filename": "a.docx", "file_data": base64.b64encode(out.getvalue()).decode()}}


def asked(part: dict[str, Any]) -> ModelRequest:
    return chat.parse(json.dumps({"model": "auto", "messages": [{"role": "user", "content": [part]}]}).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    soft, written = photo(), page()
    kinds: dict[str, Callable[[int], dict[str, Any]]] = {
        "jpeg photo": lambda number: image(soft, "JPEG", number),
        "png photo": lambda number: image(soft, "PNG", number),
        "webp photo": lambda number: image(soft, "WEBP", number),
        "png page": lambda number: image(written, "PNG", number),
        "docx": document,
    }
    shop, parts = Workshop(), Parts(PartSettings(), text_chars=1_000_000)
    started_s = time.perf_counter()
    parts.unpacked(asked(image(soft, "JPEG", 99)), (), "t", shop)
    print(f"the very first, with the start of its process: {1e3 * (time.perf_counter() - started_s):.0f} ms")
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in kinds}
    for number in range(rounds):
        for name, make in kinds.items():
            request = asked(make(number))
            began_s, cpu_s = time.perf_counter(), time.thread_time()
            parts.unpacked(request, (), "t", shop)
            first_s, own_s = time.perf_counter() - began_s, time.thread_time() - cpu_s
            began_s = time.perf_counter()
            parts.unpacked(request, (), "t", shop)
            found[name].append((first_s, own_s, time.perf_counter() - began_s))
    shop.close()
    print(f"{'':12} {'first, ms':>10} {'in the gateway, ms':>20} {'again, ms':>10}")
    for name, times in found.items():
        first, own, again = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:12} {first:>10.0f} {own:>20.1f} {again:>10.1f}")


if __name__ == "__main__":
    main()
