"""The shipped lists and the checks over them, made once."""

import pytest

from conclave.safety.output.packages.check import DependencyCheck, PackageCheck
from conclave.safety.output.packages.index import PackageIndex, shipped


@pytest.fixture(scope="session")
def index() -> PackageIndex:
    return shipped()


@pytest.fixture(scope="session")
def packages(index: PackageIndex) -> PackageCheck:
    return PackageCheck(index=index)


@pytest.fixture(scope="session")
def dependencies(index: PackageIndex) -> DependencyCheck:
    return DependencyCheck(index=index)
