"""The tiny model's text: the same seed gives the same chats, and what is held out is never drawn."""

from itertools import islice
from random import Random

from conclave.moe.corpus import Corpus, disturbed


def test_the_same_seed_gives_the_same_chats_and_another_does_not() -> None:
    corpus = Corpus()
    one, same, other = (list(islice(corpus.chats(Random(seed)), 30)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_what_is_asked_in_the_evaluation_is_never_trained_on() -> None:
    corpus = Corpus()
    asked = {each.ask.lower() for each in [*corpus.held_out_facts(), *corpus.held_out_unknown()]}
    asked |= {each.ask.lower() for each in corpus.held_out_tasks(Random(1), 30) if each.kind != "next"}
    drawn = {exchange.ask.lower() for chat in islice(corpus.chats(Random(0)), 8000) for exchange in chat.exchanges}
    assert not asked & drawn


def test_every_fact_can_be_asked_in_three_trained_ways_and_answers_are_one_line() -> None:
    corpus = Corpus()
    for fact in corpus._facts:
        assert len(fact.asks) >= 4, fact.answer
        assert len(set(fact.asks)) == len(fact.asks)
        assert "\n" not in fact.answer


def test_disturbing_a_question_keeps_its_words() -> None:
    for seed in range(50):
        assert "how do i add an expert" in disturbed("How do I add an expert?", Random(seed)).lower()
