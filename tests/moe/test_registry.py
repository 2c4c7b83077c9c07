"""The registry: names taken twice and unknown names are errors that help."""

from dataclasses import dataclass

import pytest

from conclave.moe.registry import Registry
from conclave.moe.routing import POLICIES


@dataclass(frozen=True)
class Thing:
    size: int = 1


def test_a_name_is_taken_once() -> None:
    registry: Registry[Thing] = Registry("thing", package="conclave.moe.policies")
    registry.register("one")(Thing)
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("one")(Thing)


def test_what_was_registered_is_made_from_its_name_or_its_settings() -> None:
    registry: Registry[Thing] = Registry("thing", package="conclave.moe.policies")
    registry.register("one")(Thing)
    assert registry.make("one") == Thing()
    assert registry.make({"name": "one", "size": 3}) == Thing(3)
    assert registry.settings(Thing(3)) == {"name": "one", "size": 3}


def test_the_shipped_policies_are_these() -> None:
    assert POLICIES.names() == ["group_topk", "null", "patch_causal", "stochastic", "topk", "topp"]


@pytest.mark.parametrize("name", ["", "nothing", None, 3, ["topk"]], ids=str)
def test_an_unknown_name_is_refused_with_the_known_ones(name: object) -> None:
    with pytest.raises(ValueError, match="known are group_topk, null"):
        POLICIES.make({"name": name})
