"""The shipped router, loaded once, and the folder of the evaluation data."""

import os
from pathlib import Path

import pytest

from conclave.router.classify import Router


@pytest.fixture(scope="session")
def shipped() -> Router:
    return Router.load()


@pytest.fixture(scope="session")
def data() -> Path:
    folder = os.environ.get("CONCLAVE_DATA")
    if not folder:
        pytest.skip("CONCLAVE_DATA does not say where category_train and category_dev are")
    return Path(folder)
