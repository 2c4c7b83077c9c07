"""Which names are taken for others."""

import pytest

from conclave.safety.output.packages.ecosystems import Ecosystem
from conclave.safety.output.packages.index import PackageIndex
from conclave.safety.output.packages.names import Neighbours, distance

USED = ["requests", "numpy", "cross-env", "@babel/core", "python-dateutil", "mypy-boto3-sqs", "urllib3", "os"]
MOST_HONEST_NEIGHBOURS = 0.025


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("reqeusts", "requests"),
        ("request", "requests"),
        ("nunpy", "numpy"),
        ("crossenv", "cross-env"),
        ("cross.env", "cross-env"),
        ("babel-core", "@babel/core"),
        ("@babe1/core", "@babel/core"),
        ("requests-python", "requests"),
        ("nurnpy", "numpy"),
        ("urllib", None),
        ("mypy-boto3-sns", None),
        ("so", None),
        ("flask", None),
        ("r" * 300, None),
        ("", None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_name_is_near_what_was_probably_meant(name: str, meant: str | None) -> None:
    neighbours = Neighbours(USED)
    assert (neighbours.alike(name) or neighbours.slip(name)) == meant


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ("ab", "ba", 1),
        ("abc", "abc", 0),
        ("abc", "axc", 1),
        ("abc", "ac", 1),
        ("ca", "abc", 3),
        ("kitten", "sitting", 3),
    ],
)
def test_a_swap_of_neighbours_is_one_edit(one: str, other: str, apart: int) -> None:
    """Optimal string alignment: no part is edited twice, so `ca` and `abc` are three apart."""
    assert distance(one, other, 5) == apart


def test_few_honest_names_beyond_the_list_are_taken_for_one_of_it(index: PackageIndex) -> None:
    """As if the lists ended at rank 5,000: the next 10,000 honest names of PyPI, every tenth of them."""
    names = index.popular[Ecosystem.PYPI]
    neighbours = Neighbours(names[:5_000])
    held_out = names[5_000::10]
    near = [name for name in held_out if neighbours.alike(name) or neighbours.slip(name)]
    assert len(near) <= MOST_HONEST_NEIGHBOURS * len(held_out)
