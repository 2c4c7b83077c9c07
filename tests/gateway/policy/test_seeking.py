"""What a call is looked up by, with whose rights, and that no document beyond them is ever shown or named."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from shelf import Leaf, shelve

from conclave.gateway.access.scope import Scope
from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import ConclaveError, InvalidRequest
from conclave.gateway.evidence import Searched
from conclave.gateway.knowledge import Knowledge
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.retrieval import RetrievalSettings
from conclave.gateway.policy.seeking import MakeSeeking, Seeking, Wish, known_of, question_of, wish_of
from conclave.gateway.testing import FakeExpert
from conclave.retrieval.api import Found, Passage, Query, Results, Rights
from conclave.router.api import Decision, Step
from conclave.router.gates.retrieval import Mode
from conclave.safety.api import Origin, Segment

from ..looking import ASKED, House, ask, encoder

TAGS = ("hr", "legal", "board")
COLLECTIONS = ("default", "wiki", "contracts")
ANYONE = Rights(None, frozenset())


def request(body: dict[str, Any] | None = None, needs: tuple[str, ...] = (), operation: Any = "chat") -> ModelRequest:
    return ModelRequest(body or {}, "auto", False, False, frozenset(needs), operation)


def user(text: str, place: str = "messages[0].content") -> Segment:
    return Segment(Origin.USER, text, text, place)


def seeking(*, quotes: frozenset[str] = frozenset(), observe: bool = False, **said: Any) -> Seeking:
    return MakeSeeking(encoder())(RetrievalSettings(**said), _open(), quotes, observe=observe)


def _open() -> Any:
    from conclave.gateway.policy.screening import OPEN  # noqa: PLC0415  a value

    return OPEN


def found(
    *similar: float, coverage: float | None = 0.9, text: str = "In the tower of Zunelor hang eleven bells."
) -> Searched:
    passages = [Passage(text, f"{number}.md", "", 0, len(text)) for number in range(len(similar))]
    results = Results(tuple(map(Found, passages, similar)), 1, len(similar), coverage)
    return Searched(Query(ASKED, ANYONE), results)


def decision(expert: str = "a", *, on_trial: bool = False, **expected: float) -> Decision:
    return Decision(
        (Step(expert, "category", on_trial=on_trial), Step("b", "fallback")), "category", "math", expected=expected
    )


@pytest.mark.parametrize(
    ("policy", "scope", "wish", "rights"),
    [
        ({}, Scope(), None, Rights(None, frozenset())),
        ({"tags": ["hr"]}, Scope(), None, Rights(None, frozenset({"hr"}))),
        ({"tags": ["hr"]}, Scope(tags=frozenset({"hr", "board"})), None, Rights(None, frozenset({"hr"}))),
        ({"tags": ["hr"]}, Scope(tags=frozenset()), None, Rights(None, frozenset())),
        ({}, Scope(tags=frozenset({"board"})), None, Rights(None, frozenset())),
        ({"collections": ["wiki"]}, Scope(), None, Rights(frozenset({"wiki"}), frozenset())),
        ({"collections": ["wiki"]}, Scope(collections=frozenset({"default"})), None, Rights(frozenset(), frozenset())),
        ({}, Scope(collections=frozenset({"wiki"})), ["default", "wiki"], Rights(frozenset({"wiki"}), frozenset())),
        ({"collections": ["wiki"]}, Scope(), ["default"], Rights(frozenset(), frozenset())),
        ({}, Scope(), [], Rights(frozenset(), frozenset())),
    ],
)
def test_rights_are_what_policy_scope_and_request_all_allow(
    policy: dict[str, Any], scope: Scope, wish: list[str] | None, rights: Rights
) -> None:
    asked = Wish(collections=None if wish is None else frozenset(wish))
    query = seeking(**policy).query(request(), (user(ASKED),), scope, asked)
    assert query is not None
    assert query.rights == rights


def any_rights(dice: random.Random) -> dict[str, Any]:
    """What a policy, a tenant or a scope may say of rights."""
    said: dict[str, Any] = {}
    if dice.random() < 0.6:
        said["tags"] = dice.sample(TAGS, dice.randint(0, 3))
    if dice.random() < 0.4:
        said["collections"] = dice.sample(COLLECTIONS, dice.randint(1, 2))
    return said


def readable(leaf: Leaf, gives: dict[str, Any], narrows: list[dict[str, Any]], wish: list[str] | None) -> bool:
    """The claim in its plainest words: the policy gives it, and neither scope nor request takes it away."""
    tags = set(gives.get("tags", ()))
    for one in narrows:
        tags &= set(one.get("tags", TAGS))
    limits = [one["collections"] for one in (gives, *narrows) if "collections" in one]
    limits += [wish] if wish is not None else []
    return all(leaf.collection in limit for limit in limits) and (not leaf.tags or bool(tags & set(leaf.tags)))


async def test_no_document_beyond_the_rights_reaches_an_expert_an_answer_or_a_record(tmp_path: Path) -> None:
    """150 policies with a tenant and scopes, a call each with a wish, over 40 documents; none leaks, few are missed."""
    dice = random.Random(20_261_122)
    leaves = [
        Leaf(
            f"In the tower of Zunelor hang {number} bells, says witness W{number}W of the harbour board.",
            f"doc{number}x.md",
            tags=tuple(dice.sample(TAGS, dice.choice([0, 1, 1, 2]))),
            collection=dice.choice(COLLECTIONS),
        )
        for number in range(40)
    ]
    shelve(tmp_path / "k", encoder().encode, leaves)
    library = Knowledge(tmp_path / "k", encoder().encode)
    shown = closed = 0
    for _ in range(150):
        retrieval = {"mode": "always", "guard": "off", "passages": 20, "tokens": 100_000, **any_rights(dice)}
        own = {"mode": "always", "guard": "off", "passages": 20, "tokens": 100_000, **any_rights(dice)}
        tenants = {"t": {"retrieval": own}} if dice.random() < 0.4 else {}
        scopes = {name: any_rights(dice) for name in ("one.read", "two.synth")}
        keys = None if dice.random() < 0.3 else tuple(dice.sample(sorted(scopes), dice.randint(1, 2)))
        wanted = dice.choice([None, None, keys[0] if keys else "one.read"])
        wish = None if dice.random() < 0.6 else dice.sample(COLLECTIONS, dice.randint(0, 2))
        here = House(
            FakeExpert("a", answer=" ".join(f"[{n}]" for n in range(1, 21))), library=library, scope=Scope(None, keys),
            retrieval=retrieval, tenants=tenants, scopes=scopes, defences=[],
        )  # fmt: skip
        conclave: dict[str, Any] = {"retrieval": {"collections": wish}, "scope": wanted}
        answer = await here.run(ask(conclave=conclave))
        narrows = [scopes[name] for name in ((wanted,) if wanted else keys or ())]
        may = {leaf.source for leaf in leaves if readable(leaf, own if tenants else retrieval, narrows, wish)}
        seen = json.dumps(here.sent("a")) + json.dumps(answer[-2].event) + json.dumps(here.row, default=str)
        leaked = [leaf.source for leaf in leaves if leaf.source in seen and leaf.source not in may]
        assert leaked == [], (retrieval, tenants, scopes, keys, wanted, wish)
        missed = [source for source in may if source not in seen]
        assert len(may) > 20 or not missed, "what may be read is found"
        shown, closed = shown + len(may), closed + len(leaves) - len(may)
    library.close()
    assert min(shown, closed) > 500


@pytest.mark.parametrize(
    ("texts", "question"),
    [
        ([ASKED], ASKED),
        (["The tower of Zunelor has bells.", "And how many?"], "The tower of Zunelor has bells.\nAnd how many?"),
        (["The tower of Zunelor has bells.", "And how many of them are there?"], "And how many of them are there?"),
        (["And how many?"], "And how many?"),
        (["", "  "], ""),
        ([], ""),
    ],
)
def test_few_words_are_looked_up_with_those_before_them(texts: list[str], question: str) -> None:
    assert question_of([user(one, f"messages[{place}].content") for place, one in enumerate(texts)]) == question


def test_a_question_is_the_users_alone_and_bounded() -> None:
    data = Segment(Origin.RETRIEVED, "who is it?", "who is it?", "messages[1].content")
    assert question_of([user("who?"), data]) == "who?"
    assert len(question_of([user("word " * 400_000)])) < 5_000
    assert "\ud800" not in question_of([user("a lone \ud800 surrogate in it")])


def test_who_asks_for_nothing_searches_nothing() -> None:
    segments = (user(ASKED),)
    assert seeking().query(request(), segments, Scope(), Wish(Mode.NEVER)) is None
    assert seeking(mode="never").query(request(), segments, Scope(), Wish(Mode.ALWAYS)) is None
    assert seeking().query(request(operation="embeddings"), segments, Scope(), Wish()) is None
    assert seeking().query(request(needs=("completions",)), segments, Scope(), Wish()) is None
    assert seeking().query(request(), (), Scope(), Wish()) is None
    required = seeking(mode="required").query(request(), (), Scope(), Wish())
    assert required is not None, "it is searched for nothing, finds nothing, and nobody is asked"
    assert required.text == ""


def nobody(_: Decision) -> None:
    """Who is heard first, and may be doubted."""


def test_who_has_no_library_decides_nothing_but_where_one_is_required() -> None:
    nowhere = Searched(Query(ASKED, ANYONE))
    assert seeking().weighed(request(), nowhere, decision, nobody) is None
    required = seeking(mode="required").weighed(request(), nowhere, decision, nobody)
    assert required is not None
    assert required.now


def test_an_expert_that_only_quotes_is_looked_up_for() -> None:
    """What a policy's scores say of it was measured with documents: alone it knows nothing."""
    near = found(0.8, 0.3)
    knows = seeking().weighed(request(), near, lambda: decision(a=0.99), nobody)
    quotes = seeking(quotes=frozenset({"a"})).weighed(request(), near, lambda: decision(a=0.99), nobody)
    assert knows is not None
    assert quotes is not None
    assert (knows.now, quotes.now) == (False, True)


def test_nobody_decides_where_nothing_was_found() -> None:
    def never() -> Decision:
        raise AssertionError("it costs a table's worth of time")

    look_up = seeking().weighed(request(), found(), never, nobody)
    assert look_up is not None
    assert (look_up.possible, look_up.reason) == (False, "nothing was found")


@pytest.mark.parametrize("score", [-0.5, 1.5, 0.0, 1.0])
def test_a_score_that_is_no_share_breaks_no_call(score: float) -> None:
    assert seeking().weighed(request(), found(0.8), lambda: decision(a=score), nobody) is not None


def test_an_answer_on_trial_may_be_followed_by_a_look_up() -> None:
    one = seeking().weighed(request(), found(0.9, 0.2), lambda: decision(on_trial=True, a=0.99), lambda _: 0.3)
    plain = seeking().weighed(request(), found(0.9, 0.2), lambda: decision(a=0.99), nobody)
    assert one is not None
    assert plain is not None
    assert (one.now, one.if_unsure) == (False, True)
    assert not plain.possible


def test_what_the_search_says_is_evidence() -> None:
    known = known_of(found(0.4, 0.9, 0.7, coverage=0.25))
    assert (known.best, round(known.margin or 0, 6), known.coverage) == (0.9, 0.2, 0.25)
    assert known_of(found(0.5)).margin == 0


def test_a_wish_is_read_from_the_request_alone() -> None:
    assert wish_of({}) == wish_of({"conclave": None}) == wish_of({"conclave": {"retrieval": None}}) == Wish()
    assert wish_of({"conclave": {"retrieval": "always"}}) == Wish(Mode.ALWAYS)
    assert wish_of({"conclave": {"retrieval": {"collections": []}}}) == Wish(None, frozenset())
    for wrong in (1, ["auto"], {"mode": "no"}, {"collections": "x"}, {"collections": [None]}, {"x": 1}, "AUTO"):
        with pytest.raises(InvalidRequest, match=r"conclave\.retrieval"):
            wish_of({"conclave": {"retrieval": wrong}})


@pytest.mark.parametrize(
    "said",
    [
        {"mode": "sometimes"},
        {"collections": []},
        {"collections": ["a b"]},
        {"tags": [""]},
        {"tags": ["x"] * 257},
        {"passages": 0},
        {"passages": 21},
        {"tokens": 0},
        {"worth": -1},
        {"guard": "on"},
        {"timeout_s": 0},
        {"pasages": 3},
    ],
    ids=str,
)
def test_a_setting_that_means_nothing_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PolicyDocument.model_validate({"retrieval": said})


async def test_a_key_whose_scopes_are_several_reads_what_each_of_them_allows(tmp_path: Path) -> None:
    """The first scope's expert must not read the second's documents: so both sets are cut."""
    leaves = [Leaf("In the tower of Zunelor hang seven bells.", "hr.md", tags=("hr",))]
    scopes = {"one.read": {"tags": ["hr"]}, "two.read": {"tags": ["legal"]}}
    retrieval = {"mode": "always", "tags": ["hr", "legal"]}
    here = House(
        FakeExpert("a", answer="x"), folder=tmp_path / "k", leaves=leaves, scopes=scopes, retrieval=retrieval,
        scope=Scope(None, ("one.read", "two.read")),
    )  # fmt: skip
    await here.run(ask())
    assert here.sent("a") == ask()["messages"]
    await here.run(ask(conclave={"scope": "one.read"}))
    assert "seven bells" in json.dumps(here.sent("a"))
    with pytest.raises(ConclaveError):
        await here.run(ask(conclave={"scope": "three.read"}))
    here.close()
