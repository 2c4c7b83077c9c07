"""`--fail-on-skip`: for machines that have all the tests need, where a skip would hide a test that nobody runs."""

from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines are busy
settings.load_profile("here")
MAY_SKIP = "gpu"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fail-on-skip", action="store_true", help=f"a skip fails, unless the test is marked {MAY_SKIP}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and MAY_SKIP not in item.keywords:
        _fail(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report = yield  # a whole module that skips itself has no marks yet, so it may not
    if report.skipped:
        _fail(report, collector.config)
    return report


def _fail(report: Any, config: pytest.Config) -> None:
    if config.getoption("--fail-on-skip"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped where every test must run: {reason}"
