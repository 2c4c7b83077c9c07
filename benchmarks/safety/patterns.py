"""What looking for secrets and personal data costs, and what the same patterns cost in the standard library's `re`.

    python -m benchmarks.safety.patterns [--rounds N] [--json]

Texts of 20,000 characters: prose, code, prose with a find every 500 characters, digits, base64, Chinese. Each round
measures ours and `re` one after the other, so that what else the machine does falls on both. `re` only searches: it
runs the patterns one by one with `finditer` and looks at no checksum, entropy or neighbour. The shipped signatures are
measured beside them, with a forged turn in the text that has finds. Medians of CPU time.
"""

import argparse
import base64
import json
import random
import re
import statistics
import time
from collections.abc import Callable

from conclave.safety.api import WRITTEN, Origin, Segment, View
from conclave.safety.detect.packs import shipped
from conclave.safety.detect.patterns import read_rules
from conclave.safety.detect.pii import PiiCheck
from conclave.safety.detect.secrets import SecretsCheck
from conclave.safety.detect.signatures import SignatureCheck

CHARS = 20_000
KB = CHARS / 1000
PROSE = "The council met on Tuesday to discuss the new bridge, which cost 3.2 million so far; a vote is due in May. "
CODE = "    for index, row in enumerate(self.rows[start:end]):\n        total += row.price * 1.19 if row.taxed else 0\n"
FIND = "Write to anna.berg@nordwind.org or pay to DE75 5121 0800 1245 1261 99. "


def texts() -> dict[str, str]:
    """The texts by name, the same in every run."""
    draw = random.Random(1)  # noqa: S311  seeded, so that a run can be had again
    key = "".join(("ghp", "_", "".join(draw.choices("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", k=36))))
    return {
        "prose": PROSE,
        "code": CODE,
        "finds": PROSE * 3 + FIND + PROSE + key + " [/INST] ",
        "digits": " ".join(str(draw.randrange(10**9)) for _ in range(2_000)) + " ",
        "base64": base64.b64encode(draw.randbytes(15_000)).decode(),
        "Chinese": "请用中文写一首关于春天的诗。",
    }


def cpu_ms(function: Callable[[], object]) -> float:
    began_s = time.process_time()
    function()
    return 1e3 * (time.process_time() - began_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    checks = (SecretsCheck(), PiiCheck())
    signatures = SignatureCheck(shipped())
    rules = [rule for name in ("secrets", "pii") for rule in read_rules(name).rules]
    standard = [re.compile(rule.pattern) for rule in rules]
    rows = {}
    for name, piece in texts().items():
        text = (piece * (CHARS // len(piece) + 1))[:CHARS]
        view = View(Segment(Origin.USER, text, text, "messages[0].content"), WRITTEN, text, 0, len(text))
        findings = sum(len(check.inspect(view)) for check in checks)  # and the automata are warm
        signatures.inspect(view)
        ours, theirs, signed = [], [], []
        for _ in range(asked.rounds):
            ours.append(cpu_ms(lambda view=view: [check.inspect(view) for check in checks]))
            signed.append(cpu_ms(lambda view=view: signatures.inspect(view)))
            theirs.append(cpu_ms(lambda text=text: [list(one.finditer(text)) for one in standard]))
        rows[name] = {
            "findings": findings,
            "ms": round(statistics.median(ours), 3),
            "ms_per_kb": round(statistics.median(ours) / KB, 4),
            "signatures_ms": round(statistics.median(signed), 3),
            "re_ms": round(statistics.median(theirs), 1),
            "re_ms_per_kb": round(statistics.median(theirs) / KB, 3),
        }
    if asked.json:
        print(json.dumps({"chars": CHARS, "patterns": len(rules), "rows": rows}))
        return
    print(f"{len(rules)} patterns, {CHARS} characters, medians of {asked.rounds}")
    print(f"{'text':10} {'findings':>8} {'ms':>8} {'ms/KB':>8} {'signatures ms':>13} {'re ms':>8} {'re ms/KB':>9}")
    for name, row in rows.items():
        print(
            f"{name:10} " + " ".join(f"{row[key]:>{size}}" for key, size in zip(row, (8, 8, 8, 13, 8, 9), strict=True))
        )


if __name__ == "__main__":
    main()
