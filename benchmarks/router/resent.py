"""What a resent history costs the routing decision: a new turn that leans on it, against the same turn alone.

    python -m benchmarks.router.resent [--rounds 200] [--kilobytes 64]

An agent's conversation of that size comes again with one new turn; the decision (where it stands in its conversation,
the classification, the choice) is timed beside the decision for the new turn alone, and beside one where no turn was
classified before, in turn, in one process. New turns differ, so each is classified anew. Prints the median and the 90th
percentile in ms, and the ratios of the medians. Takes some seconds; asks nobody.
"""

import argparse
import statistics
import time
from typing import Any

from conclave.gateway.access.scope import Scope
from conclave.gateway.call import ModelRequest
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.load import complete
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.remembered import Conversations
from conclave.router.classify import Router

TURN = "Please look at this function and tell me why the second test fails for an empty list:\n"
CODE = "def median(values):\n    ordered = sorted(values)\n    middle = len(ordered) // 2\n    return ordered[middle]\n"


def history(kilobytes: int) -> list[dict[str, Any]]:
    """Messages of about that size: questions with code, and answers."""
    messages: list[dict[str, Any]] = []
    while sum(len(message["content"]) for message in messages) < kilobytes * 1024:
        number = len(messages)
        messages.append({"role": "user", "content": f"{TURN}# case {number}\n{CODE * 6}"})
        messages.append({"role": "assistant", "content": f"Case {number}: an empty list has no middle.\n{CODE * 6}"})
    return messages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--kilobytes", type=int, default=64)
    options = parser.parse_args()
    router = Router.load()
    document = complete(PolicyDocument(), {})
    rules = Version(document, Pool({}), classify=router.classify, model_digest=router.digest).rules_for("t")
    before, warm = history(options.kilobytes), Conversations()

    def decide(messages: list[dict[str, Any]], home: Conversations) -> float:
        request = ModelRequest({"messages": messages}, "auto", False, False, frozenset())
        segments = rules.read(request)
        began = time.perf_counter()
        asked = rules.asked(request, segments, Scope(), home.of("t", request, segments))
        rules.choose(asked)
        return (time.perf_counter() - began) * 1000

    decide([*before, {"role": "user", "content": "make it shorter"}], warm)
    times: dict[str, list[float]] = {"alone": [], "resent": [], "resent, nothing remembered": []}
    for number in range(options.rounds):
        new = {"role": "user", "content": f"and make it {number} lines shorter"}
        times["alone"].append(decide([new], warm))
        times["resent"].append(decide([*before, {**new, "content": f"now make it {number} lines shorter"}], warm))
        times["resent, nothing remembered"].append(decide([*before, new], Conversations()))
    alone = statistics.median(times["alone"])
    print(f"{options.kilobytes} KB, {len(before) + 1} messages, {options.rounds} rounds")
    for name, found in times.items():
        middle, slow = statistics.median(found), statistics.quantiles(found, n=10)[-1]
        print(f"{name:28} p50 {middle:7.3f} ms  p90 {slow:7.3f} ms  {middle / alone:5.2f} x alone")


if __name__ == "__main__":
    main()
