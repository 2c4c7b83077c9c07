"""Who of a call's experts is given documents, and that the decision can be made again from its row."""

import json
from collections.abc import Iterator
from typing import Any

from conclave.gateway.errors import ExpertFailed
from conclave.gateway.policy.recorded import again
from conclave.gateway.policy.replayed import walked
from conclave.gateway.testing import FakeExpert
from conclave.router.gates.retrieval import Costs, saving

from .looking import ASKED, BELLS, Open, ask, explained, said


class Doubtful(FakeExpert):
    """Says, if it is asked, how likely its words were."""

    def __init__(self, name: str, **more: Any) -> None:
        super().__init__(name, **more)
        self.likely = -4.0

    def events(self, prompt: Any) -> Iterator[dict[str, Any]]:
        for event in super().events(prompt):
            for choice in event["choices"]:
                if prompt.body.get("logprobs"):
                    choice["logprobs"] = {"content": [{"token": "x", "logprob": self.likely, "top_logprobs": []}]}
            yield event


SCORES = {"math": {"a": {"score": 0.99, "rows": 99}, "b": {"score": 0.995, "rows": 99}}}
TRIAL = {"scores": SCORES, "cascade": {"weak": "a", "strong": "b", "below": 0.4}}


async def test_an_expert_that_was_unsure_is_followed_by_one_that_is_shown_the_documents(house: Open) -> None:
    here = house(Doubtful("a", answer="nine"), said(name="b"), leaves=[BELLS], routing=TRIAL)
    answer = await here.run(ask())
    row = here.row
    assert row["decision"]["look_up"]["now"] is False
    assert row["decision"]["look_up"]["if_unsure"] is True
    assert BELLS.text not in json.dumps(here.sent("a"))
    assert BELLS.text in json.dumps(here.sent("b"))
    told = explained(answer)
    assert (told["expert"], told["escalated"], told["retrieval"]["used"]) == ("b", True, True)
    assert told["retrieval"]["tokens_saved"] == 0, "what was looked up in the end saved nothing"
    assert [one["n"] for one in told["citations"]] == [1]
    assert row["retrieval"]["outcome"] == "used"


async def test_a_fallback_after_a_trial_that_failed_is_shown_nothing(house: Open) -> None:
    down = Doubtful("a", failure=ExpertFailed("no", kind="connect"))
    here = house(down, said(name="b"), leaves=[BELLS], routing=TRIAL)
    told = explained(await here.run(ask()))
    assert (told["expert"], told["retrieval"]["used"]) == ("b", False)
    assert here.sent("b") == ask()["messages"]


async def test_a_fallback_of_one_that_was_shown_them_is_shown_them(house: Open) -> None:
    down = said(failure=ExpertFailed("no", kind="connect"))
    here = house(down, said(name="b"), leaves=[BELLS], retrieval={"mode": "always"})
    told = explained(await here.run(ask()))
    assert (told["expert"], told["retrieval"]["used"]) == ("b", True)
    assert here.sent("a") == here.sent("b")


async def test_a_decision_that_was_looked_up_is_decided_again_bit_for_bit(house: Open) -> None:
    for routing in (TRIAL, {"scores": SCORES}, {}):
        for mode in ("auto", "always", "required"):
            weak = Doubtful("a", answer="x")
            here = house(weak, said(name="b"), leaves=[BELLS], routing=routing, retrieval={"mode": mode})
            await here.run(ask())
            row = json.loads(json.dumps(here.row, default=str))
            assert again(here.version.rules_for("t"), row) == []
            assert walked(row) == []
            row["decision"]["look_up"]["now"] = not row["decision"]["look_up"]["now"]
            row["decision"]["look_up"]["if_unsure"] = False
            assert again(here.version.rules_for("t"), row) != [], "another decision is noticed"


async def test_the_tokens_saved_are_the_papers_formula_on_the_rows(house: Open) -> None:
    weak = Doubtful("a", answer="x")
    here = house(weak, said(name="b"), leaves=[BELLS], routing=TRIAL)
    for question in (ASKED, "What is two and two?", "Who founded Rome?", "How many bells?", "Is Zunelor tall?"):
        await here.run(ask(question))
        weak.likely = -4.0 if weak.likely > -1 else -0.01
    rows = []
    for call in list(here.calls):
        here.calls.append(call)
        rows.append(here.row["retrieval"])
    looked = sum(row["outcome"] in {"used", "empty"} for row in rows)
    assert 0 < looked < len(rows)
    costs = Costs(context=1500)
    assert abs(sum(row["tokens_saved"] for row in rows) - saving(asked=len(rows), retrieved=looked, costs=costs)) < 1e-9
