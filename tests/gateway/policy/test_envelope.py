"""What a policy may say of signed calls, and what it comes to."""

import base64
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.envelope import EnvelopeSettings, seals_of, unusable_keys
from conclave.gateway.policy.source import dotted

PUBLIC = base64.b64encode(bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")).decode()
OWN = {"algorithm": "ed25519", "public_key": PUBLIC}
SHARED = {"algorithm": "hmac-sha256", "key_env": "SECRET"}


def settings(**keys: Any) -> EnvelopeSettings:
    return EnvelopeSettings.model_validate({"mode": "required", "keys": keys})


def test_by_default_nothing_is_signed_and_no_key_is_read() -> None:
    off = EnvelopeSettings.model_validate({"keys": {"a": {**SHARED, "key_file": "/nowhere"}}})
    assert seals_of(EnvelopeSettings(), {}).mode == seals_of(off, {}).mode == "off"


def test_keys_are_read_from_where_they_are(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("f" * 40 + "\n")
    found = seals_of(settings(a=SHARED, b={**SHARED, "key_file": str(file)}, c=OWN), {"SECRET": "s" * 40})
    assert (found.mode, found.window_s, sorted(found.keys)) == ("required", 60.0, ["a", "b", "c"])


def test_a_key_that_cannot_be_read_signs_for_nobody_and_a_warning_says_so(tmp_path: Path) -> None:
    envelope = settings(unset=SHARED, gone={**SHARED, "key_file": str(tmp_path / "gone")}, own=OWN)
    assert sorted(seals_of(envelope, {}).keys) == ["own"]
    document = PolicyDocument.model_validate({"tenants": {"acme": {"envelope": envelope}}})
    found = {problem.key: problem.message for problem in unusable_keys(document, {"SECRET": "short"}, dotted)}
    assert sorted(found) == [f"policy.tenants.acme.envelope.keys.{kid}" for kid in ("gone", "unset")]
    assert not any(word == "short" for message in found.values() for word in message.split())


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"mode": "required"}, "needs keys"),
        ({"mode": "optional", "keys": {}}, "needs keys"),
        ({"keys": {"a": {"algorithm": "ed25519"}}}, "needs public_key"),
        ({"keys": {"a": {**OWN, "key_env": "X"}}}, "takes only public_key"),
        ({"keys": {"a": {"algorithm": "hmac-sha256"}}}, "needs key_env or key_file"),
        ({"keys": {"a": {**SHARED, "public_key": PUBLIC}}}, "has no public_key"),
        ({"keys": {"a": {"algorithm": "ed25519", "public_key": "c2hvcnQ="}}}, "32 bytes"),
        ({"keys": {"a": {"algorithm": "ed25519", "public_key": "%%%"}}}, "32 bytes"),
        ({"keys": {"a": {"algorithm": "rs256"}}}, "hmac-sha256"),
        ({"keys": {"a b": OWN}}, "no kid"),
        ({"keys": {"a": {**SHARED, "key_env": "not a name"}}}, "pattern"),
        ({"window_s": 0}, "greater than or equal to 1"),
        ({"window_s": 86400}, "less than or equal"),
    ],
)  # fmt: skip
def test_what_could_not_work_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        EnvelopeSettings.model_validate(said)
