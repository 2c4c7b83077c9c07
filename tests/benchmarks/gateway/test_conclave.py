"""The configuration that is measured is one that the gateway takes, and is as lean as the page says."""

from pathlib import Path

import yaml

from benchmarks.gateway.conclave import EXPERT, settings
from conclave.gateway.policy.part import CATEGORIES
from conclave.gateway.settings import load_settings


def test_the_lean_configuration_sends_every_category_to_the_mock(tmp_path: Path) -> None:
    said = settings("http://127.0.0.1:9100/v1", port=9101, admin_port=9102, state_dir=tmp_path / "state")
    (tmp_path / "conclave.yaml").write_text(yaml.safe_dump(said))
    loaded = load_settings(tmp_path / "conclave.yaml")
    assert not loaded.warnings
    assert set(loaded.policy.categories) == set(CATEGORIES)
    assert {*loaded.policy.categories.values(), loaded.policy.default} == {(EXPERT,)}
    assert loaded.policy.stages.route == "on"
    assert loaded.server.cors.origins
    assert loaded.policy.limits.requests_per_minute == 1_000_000
    assert loaded.server.state_dir == tmp_path / "state"
