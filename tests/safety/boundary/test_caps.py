"""Shape: depth and Unicode validity of a whole body."""

import pytest

from conclave.safety.boundary.caps import VALUES, BoundaryError, check_shape


def nested(depth: int) -> object:
    value: object = "x"
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_up_to_the_limit_passes_and_one_more_does_not() -> None:
    check_shape({"tools": nested(9)}, nesting=10)
    with pytest.raises(BoundaryError, match="deeper than 10") as caught:
        check_shape({"tools": nested(10)}, nesting=10)
    assert caught.value.place == "tools"
    assert not caught.value.too_large


def test_depth_far_past_the_interpreters_stack_is_refused_not_a_crash() -> None:
    with pytest.raises(BoundaryError, match="deeper"):
        check_shape({"tools": nested(100_000)}, nesting=500)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"user": "\ud800"}, id="value"),
        pytest.param({"metadata": {"\udfff": 1}}, id="key"),
        pytest.param({"tools": [{"function": {"description": "a\ud83d"}}]}, id="deep"),
        pytest.param({"\ud800": 1}, id="top-level-key"),
    ],
)
def test_a_lone_surrogate_anywhere_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(BoundaryError, match="surrogate"):
        check_shape(body, nesting=10)


def test_an_emoji_is_no_lone_surrogate() -> None:
    check_shape({"user": "😀", "messages": [{"role": "user", "content": "日本 é"}]}, nesting=10)


def test_more_values_than_mean_anything_are_refused() -> None:
    check_shape({"x": [0] * (VALUES - 1)}, nesting=64)
    with pytest.raises(BoundaryError) as refused:
        check_shape({"x": [0] * VALUES}, nesting=64)
    assert refused.value.too_large


@pytest.mark.parametrize("value", [nested(30), "\ud800"], ids=["deep", "surrogate"])
def test_the_place_holds_no_more_than_the_beginning_of_a_key(value: object) -> None:
    with pytest.raises(BoundaryError) as caught:
        check_shape({"k" * 1_000_000: value}, nesting=10)
    assert caught.value.place == "k" * 64
