"""Categories of the user's own: learned from a few examples, and nothing shipped is changed by them."""

from pathlib import Path
from random import Random

import pytest

from conclave.router.categories import LEAST_EXAMPLES, OwnCategories
from conclave.router.classify import Router
from conclave.router.train.rows import TRAIN_FILE, read_rows

COOKING = (
    "how do I keep my risotto from going mushy",
    "what can I make with two eggs and leftover rice",
    "how long do I roast a whole chicken per pound",
    "substitute for buttermilk in pancakes",
    "why did my sourdough not rise in the oven",
    "recipe for a quick tomato soup with basil",
    "can I freeze cooked lasagna and reheat it later",
    "best way to caramelize onions without burning them",
    "what spices go into a good chili con carne",
    "my cake is dry in the middle, what did I do wrong when baking",
)
MIXED = (
    "write a python function that reverses a linked list",
    "what is the derivative of x squared",
    "can my landlord keep my deposit if there is no lease?",
    "what are the side effects of ibuprofen",
    "who won the world cup in 1998",
    "write me a short poem about my old bicycle",
    "set a timer for ten minutes please",
    "why did the Roman republic fall",
    "my credit card was charged twice",
)
ELSEWHERE = (
    "write a python function that reverses a linked list",
    "what is the derivative of x squared",
    "can my landlord keep my deposit if there is no lease?",
    "what are the side effects of ibuprofen",
    "¿Cómo puedo llegar a la estación de trenes?",
    "",
    "a" * 100_000,
)


@pytest.fixture(scope="module")
def taught(shipped: Router) -> OwnCategories:
    return shipped.taught({"cooking": COOKING})


@pytest.mark.parametrize(
    "text",
    ["how do I make a tomato sauce with garlic and basil", "how long should I bake chicken in the oven"],
)
def test_a_text_like_the_examples_is_of_the_new_category(taught: OwnCategories, text: str) -> None:
    assert taught.classify(text).category == "cooking"


@pytest.mark.parametrize("text", ELSEWHERE, ids=lambda text: text[:16])
def test_a_text_unlike_them_keeps_its_category(shipped: Router, taught: OwnCategories, text: str) -> None:
    assert taught.classify(text).category == shipped.classify(text).category


@pytest.mark.parametrize("text", [*ELSEWHERE, COOKING[0]], ids=lambda text: text[:16])
def test_the_shipped_categories_keep_their_ratios(shipped: Router, taught: OwnCategories, text: str) -> None:
    before, after = shipped.classify(text), taught.classify(text)
    assert tuple(after.probabilities) == (*shipped.categories, "cooking") == taught.categories
    assert sum(after.probabilities.values()) == pytest.approx(1, abs=1e-9)
    rest = 1 - after.probabilities["cooking"]
    for name, probability in before.probabilities.items():
        assert after.probabilities[name] == pytest.approx(probability * rest, abs=1e-9)
    assert after.category == max(after.probabilities, key=after.probabilities.__getitem__)
    assert after.confidence == after.probabilities[after.category]


def test_two_new_categories_share_what_is_left(shipped: Router) -> None:
    gardening = [
        "when should I prune my roses", "how often do tomato plants need water", "my lawn has brown patches",
        "which vegetables grow well in shade", "how to get rid of aphids on roses", "best soil for growing carrots",
        "when do I plant tulip bulbs", "can I compost weeds with seeds", "why are my basil leaves turning yellow",
    ]  # fmt: skip
    both = shipped.taught({"cooking": COOKING, "gardening": gardening})
    assert both.classify("how deep do I plant potato seeds in the garden").category == "gardening"
    assert sum(both.classify("soup").probabilities.values()) == pytest.approx(1, abs=1e-9)


def test_the_same_examples_in_another_order_teach_the_same(shipped: Router, taught: OwnCategories) -> None:
    again = shipped.taught({"cooking": [*reversed(COOKING), COOKING[3], " "]})
    assert again.classify("how to fry an egg") == taught.classify("how to fry an egg")


def test_a_batch_is_the_same_as_one_by_one(taught: OwnCategories) -> None:
    assert taught.classify_batch(ELSEWHERE) == [taught.classify(text) for text in ELSEWHERE]


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ({"cooking": COOKING[: LEAST_EXAMPLES - 1]}, "'cooking' has 7 different examples; it takes 8"),
        ({"cooking": [COOKING[0]] * 20}, "'cooking' has 1 different examples"),
        ({"cooking": [" "] * 20}, "'cooking' has 0 different examples"),
        ({"code": COOKING}, "'code' is a shipped category"),
        ({"mixed": MIXED}, "'mixed': from the other examples only"),
    ],
    ids=["too few", "one again and again", "blank", "a shipped name", "nothing in common"],
)
def test_examples_that_teach_nothing_are_refused(shipped: Router, examples: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        shipped.taught(examples)


def test_a_source_taken_for_a_new_category_is_found_again(shipped: Router, data: Path) -> None:
    """Sixteen questions about bank cards teach the others; of all else few are taken for them (docs/router.md)."""
    draw = Random(1)
    rows = list(read_rows(data / TRAIN_FILE))
    mine = [row.text for row in rows if row.source == "banking77"]
    others = draw.sample([row.text for row in rows if row.category not in {"finance_business", "assistant_chat"}], 600)
    draw.shuffle(mine)
    cards = shipped.taught({"cards": mine[:16]})
    found = [one.category == "cards" for one in cards.classify_batch(mine[16:316])]
    taken = [one.category == "cards" for one in cards.classify_batch(others)]
    assert sum(found) / len(found) >= 0.4
    assert sum(taken) / len(taken) <= 0.02
