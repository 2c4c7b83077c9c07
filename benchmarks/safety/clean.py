"""How much honest text the cleaning of data changes: what is stripped, and what is taken for a marker.

    python -m benchmarks.safety.clean --data DIR

DIR holds category_train, category_dev, injection_train and poisoned_context (their honest rows). Beside them 2,000
texts are drawn from sentences in twenty languages, most of which need characters that nobody sees, and from emoji:
Persian, Hindi, Sinhala, Thai, Khmer, Arabic with directions, families and flags. A row says how many texts are not what
they were.
"""

# ruff: noqa: RUF001  letters of many alphabets

import gzip
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click
import msgspec

from conclave.safety.boundary.invisible import strip
from conclave.safety.boundary.marker import defused

DRAWN: Final = 2_000
HONEST: Final[dict[str, Callable[[dict[str, object]], bool]]] = {
    "category_train": lambda _: True,
    "category_dev": lambda _: True,
    "injection_train": lambda row: row["label"] == 0,
    "poisoned_context": lambda row: row["label"] == 0,
}
SENTENCES: Final = (
    "من می\u200cخواهم کتاب\u200cهای تازه\u200cای بخوانم.",  # Persian
    "دەمەوێ بە کوردی بنووسم، ئێمە\u200cش هەروەها.",  # Kurdish
    "میں\u200c اردو میں لکھتا ہوں۔",  # Urdu
    "\u2067مرحبا بالعالم\u2069 (A1\u200e) كيف الحال؟",  # Arabic
    "שלום\u200f! מה שלומך היום?",  # Hebrew
    "क्\u200dष और र्\u200dय के रूप हिन्दी में मिलते हैं।",  # Hindi
    "মর্\u200dযাদা এবং উৎসব দুটোই আছে।",  # Bengali
    "ക്\u200dഷ എന്നും നന്\u200d എന്നും എഴുതാം.",  # Malayalam
    "ශ්\u200dරී ලංකාව ලස්සන රටකි.",  # Sinhala
    "ಕ್\u200dಷ ಅಕ್ಷರವನ್ನು ಹೀಗೆ ಬರೆಯುತ್ತಾರೆ.",  # Kannada
    "సాఫ్ట్\u200cవేర్ గురించి చదువుతున్నాను.",  # Telugu
    "สวัสดี\u200bครับ\u200bวันนี้อากาศดี",  # Thai
    "ភាសា\u200bខ្មែរ\u200bសរសេរ\u200bដោយ\u200bគ្មាន\u200bដកឃ្លា",  # Khmer
    "မြန်မာ\u200bစာ\u200bကို\u200bဖတ်နေတယ်",  # Burmese
    "ᠮᠣᠩᠭᠣᠯ\u180b ᠪᠢᠴᠢᠭ\u180e",  # Mongolian
    "葛\U000e0100城市と辻\U000e0101さん、㊗\ufe0fおめでとう。",  # Japanese
    "三国演义是一部小说\u200b，很有名。",  # Chinese
    "각\u115f\u1160 나라의 말은 다르다.",  # Korean
    "Donau\u00addampf\u00adschiff\u00adfahrt und Auf\u00adlage.",  # German
    "Привет, как дела? Сегодня тепло.",  # Russian
    "Καλημέρα, τι κάνεις σήμερα;",  # Greek
    "👨\u200d👩\u200d👧\u200d👦 and 🏳\ufe0f\u200d🌈, ❤\ufe0f\u200d🔥, 👩🏽\u200d🚀, 1\ufe0f⃣, ℹ\ufe0f!",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f beat 🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f, ☠\ufe0f and ©\ufe0f.",  # noqa: E501  flags are long
    "The file\u200b opens at ten \ufeff| W\ufeff / 40.",
)


def drawn(draw: random.Random) -> str:
    """A text of two to six sentences, in lines, lists or JSON."""
    said = draw.choices(SENTENCES, k=draw.randint(2, 6))
    form = draw.choice((" ".join, "\n".join, "\n- ".join, lambda all_: msgspec.json.encode(all_).decode()))
    return form(said)


def honest(data: Path) -> Iterator[tuple[str, str]]:
    """The file and the text of each honest row; questions in several languages apart."""
    for name, is_honest in HONEST.items():
        with gzip.open(data / f"{name}.jsonl.gz") as lines:
            for line in lines:
                row = msgspec.json.decode(line)
                if is_honest(row):
                    multilingual = row.get("source") == "xquad"
                    yield "eleven languages" if multilingual else name, row.get("text") or row["passage"]


def is_changed(text: str) -> bool:
    """Whether an expert would be sent something else for it."""
    return defused(strip(text)) != text


@click.command()
@click.option("--data", required=True, envvar="CONCLAVE_DATA", type=click.Path(exists=True, path_type=Path))
@click.option("--seed", default=1, show_default=True)
def main(data: Path, seed: int) -> None:
    """Print how many honest texts change."""
    draw = random.Random(seed)  # noqa: S311  so that a run can be had again
    counts: dict[str, list[int]] = {}
    for name, text in (*honest(data), *(("drawn", drawn(draw)) for _ in range(DRAWN))):
        count = counts.setdefault(name, [0, 0])
        count[0] += 1
        count[1] += is_changed(text)
    for name, (texts, changed) in counts.items():
        print(f"{name:20} {texts:7} texts {changed:5} changed")
    texts, changed = (sum(count[at] for count in counts.values()) for at in (0, 1))
    print(f"{'all':20} {texts:7} texts {changed:5} changed ({changed / texts:.3%})")


if __name__ == "__main__":
    main()
