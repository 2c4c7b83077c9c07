"""Texts that were let pass before are judged by milder rules, all others by the stricter ones, and none by both."""

from dataclasses import dataclass

import pytest

from conclave.safety.api import Action, Finding, Origin, Segment, Severity, View
from conclave.safety.boundary.views import views_of
from conclave.safety.known import KnownRunner
from conclave.safety.runner import Memo, Rule, Runner


@dataclass(frozen=True)
class WordCheck:
    """Finds a word."""

    word: str
    name: str = "words"
    origins: frozenset[Origin] = frozenset(Origin)
    decodes: bool = False

    def inspect(self, view: View) -> list[Finding]:
        if self.word not in view.text:
            return []
        return [Finding(self.name, "word", Severity.MEDIUM, 1.0, view.segment.place, 0, len(view.text))]


def runner(action: Action, word: str = "bad") -> Runner:
    return Runner((Rule(WordCheck(word), action),), version=f"{action} {word}", views_of=views_of, memo=Memo(b"k" * 32))


def segment(text: str, place: str) -> Segment:
    return Segment(Origin.USER, text, text, place)


@pytest.mark.parametrize(
    ("old", "new", "action", "found"),
    [("bad", "good", Action.ANNOTATE, 1), ("good", "bad", Action.BLOCK, 1), ("bad", "bad", Action.BLOCK, 2)],
    ids=["only the old text", "only the new text", "both"],
)
def test_each_text_is_judged_by_its_own_rules(old: str, new: str, action: Action, found: int) -> None:
    looks = KnownRunner(runner(Action.BLOCK), runner(Action.ANNOTATE), frozenset({"old"}))
    verdict = looks.screen([segment(old, "old"), segment(new, "new")], tenant="t")
    assert (verdict.action, verdict.would) == (action, action)
    assert len(verdict.findings) == len(verdict.acted) == found


def test_what_only_the_stricter_rules_find_in_an_old_text_is_not_held_against_it() -> None:
    """A lower threshold holds from now on: a text that passed under the usual one does not refuse further turns."""
    looks = KnownRunner(runner(Action.BLOCK, "od"), runner(Action.BLOCK), frozenset({"old"}))
    verdict = looks.screen([segment("good", "old")], tenant="t")
    assert (verdict.action, verdict.findings) == (Action.ALLOW, ())


def test_what_the_usual_rules_refuse_by_now_is_refused_in_an_old_text_too() -> None:
    looks = KnownRunner(runner(Action.BLOCK), runner(Action.BLOCK), frozenset({"old"}))
    assert looks.screen([segment("bad", "old")], tenant="t").action is Action.BLOCK
