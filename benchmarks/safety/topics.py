"""How well the check `topics` knows a topic from a few examples.

    CONCLAVE_DATA=DIR nice python -m benchmarks.safety.topics [--json]

Five topics of `topics.yaml`, 40 texts each, written for this. Each is learned from 8, 16 or 32 of its texts, drawn ten
times, and looked for in the others. Three sorts of text may be taken for it by mistake: honest neighbours, which share
its words; the other topics' texts; and questions of `category_dev.jsonl.gz`, of sources that the background has not
seen. For `allow_only` each topic is the only one allowed. About a minute of one core.
"""

import argparse
import gzip
import json
import os
import random
import statistics
from collections.abc import Callable
from pathlib import Path

import yaml

from conclave.router.classify import Router
from conclave.safety.api import WRITTEN, Origin, Segment, View
from conclave.safety.detect.topics import Space, TopicsCheck

HERE = Path(__file__).parent
ROUNDS = 10
SIZES = (8, 16, 32)


def finds(check: TopicsCheck) -> Callable[[str], bool]:
    """Whether the check finds anything in a text."""

    def found(text: str) -> bool:
        segment = Segment(Origin.USER, text, text, "messages[0].content")
        return bool(check.inspect(View(segment, WRITTEN, text, 0, len(text))))

    return found


def share(texts: list[str], found: Callable[[str], bool]) -> float:
    return sum(map(found, texts)) / len(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    router = Router.load()
    space = Space(router.encode, router.background)
    topics = yaml.safe_load((HERE / "topics.yaml").read_text(encoding="utf-8"))
    with gzip.open(Path(os.environ["CONCLAVE_DATA"]) / "category_dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        others = [json.loads(line)["text"] for line in lines]
    draw = random.Random(1)  # noqa: S311  seeded, so that a run can be had again
    rows = []
    for size in SIZES:
        seen: dict[str, list[float]] = {key: [] for key in ("recall", "near", "other_topics", "dev", "scope", "off")}
        for name, texts in topics.items():
            rest = [text for other, more in topics.items() if other != name for text in more["about"]]
            for number in range(ROUNDS):
                shuffled = draw.sample(texts["about"], len(texts["about"]))
                known, held = shuffled[:size], shuffled[size:]
                denied = finds(TopicsCheck(space, deny={name: known}, allow_only={}))
                seen["recall"].append(share(held, denied))
                seen["near"].append(share(texts["near"], denied))
                seen["other_topics"].append(share(rest, denied))
                off_scope = finds(TopicsCheck(space, deny={}, allow_only={name: known}))
                seen["scope"].append(1 - share(held, off_scope))
                if number == 0:
                    seen["dev"].append(share(others, denied))
                    seen["off"].append(share(others, off_scope))
        rows.append({"examples": size} | {key: round(statistics.mean(said), 4) for key, said in seen.items()})
    if asked.json:
        print(json.dumps(rows))
        return
    print("examples  recall  neighbours  other topics  questions | allow_only: in scope  questions told off scope")
    for row in rows:
        print(
            f"{row['examples']:8} {row['recall']:7.1%} {row['near']:11.1%} {row['other_topics']:13.1%} "
            f"{row['dev']:10.2%} | {row['scope']:20.1%} {row['off']:25.1%}"
        )


if __name__ == "__main__":
    main()
