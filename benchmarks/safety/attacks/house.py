"""The gateway's own pipeline in this process, as a policy says, before an expert that obeys.

What is measured is what a client gets: the words, something else, or a refusal. Each request comes from a key of its
own, so that no case is judged by the one before it.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from benchmarks.safety.attacks.obedient import WORDS, ObedientExpert
from conclave.gateway.access.scope import Grant, Scope
from conclave.gateway.api.chat import parse
from conclave.gateway.call import END, Call
from conclave.gateway.errors import ConclaveError
from conclave.gateway.experts.pool import Deployment, Pool, PoolEntry
from conclave.gateway.pipeline import Pipeline
from conclave.gateway.policy.defences import CheckSettings
from conclave.gateway.policy.document import PolicyDocument
from conclave.gateway.policy.published import Published, Version
from conclave.gateway.policy.screening import Given, MakeCheck, maker
from conclave.gateway.policy.workshop import Workshop
from conclave.router.api import Classification
from conclave.router.encoder import StaticEncoder
from conclave.safety.api import Check

RECIPE: Final = Path(__file__).parents[3] / "config/recipes/strict-safety.yaml"
SURE: Final = Classification("assistant_chat", 0.9, False, {"assistant_chat": 0.9, "code": 0.1})
CALL_S: Final = 60.0
NONE: Final[Mapping[str, Any]] = {  # no defence at all
    "defences": [],
    "answers": [],
    "turns": {"last": 0},
    "fences": {"mode": "off", "strip": "off"},
    "parts": {"images": {"mode": "pass"}, "files": {"mode": "pass"}},
}


@dataclass(frozen=True, slots=True)
class Head:
    authorization: str | None = None
    source: str = "127.0.0.1"
    origin: str | None = None
    host: str | None = None
    envelope: str | None = None


@dataclass
class Source:
    body: bytes
    head: Head = field(default_factory=Head)
    gone: bool = False

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:  # noqa: ARG002  the Protocol's names
        return self.body


@dataclass
class Door:
    """Admits everybody, each call with a key that nobody used before."""

    calls: int = 0

    async def admit(self, _: Head) -> Grant:
        self.calls += 1
        return Grant("suite", f"key-{self.calls}", Scope(), time.monotonic() + CALL_S)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a request ended: `obeyed` says that the client got the words, `refused` by what it was refused.

    `findings` are the kinds that policy acted on. `stages_ms` is the time of each stage, `checks_ms` of each check.
    """

    obeyed: bool
    refused: str | None
    findings: tuple[str, ...]
    stages_ms: Mapping[str, float]
    checks_ms: Mapping[str, float]


def strict() -> dict[str, Any]:
    """The policy of the recipe."""
    policy: dict[str, Any] = yaml.safe_load(RECIPE.read_text())["policy"]
    return policy


def layers() -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
    """What the recipe is without one of its layers."""

    def checks(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda said: said | {"defences": [one for one in said["defences"] if one["check"] not in names]}

    def but(part: str, **values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda said: said | {part: said.get(part, {}) | values}

    return {
        "fences": but("fences", mode="off"),
        "stripping": but("fences", strip="off"),
        "joined turns": but("turns", last=0),
        "images and files": lambda said: said | {"parts": NONE["parts"]},
        "hidden": checks("hidden"),
        "signatures": checks("signatures"),
        "sponge": checks("sponge"),
        "secrets, pii": checks("secrets", "pii"),
        "override, persona, harm": checks("override", "persona", "harm"),
        "embedded": checks("embedded"),
        "checks of answers": lambda said: said | {"answers": []},
    }


class House:
    """A pipeline of one policy. `make` is what makes the checks, shared by all houses: it takes the time."""

    def __init__(self, policy: Mapping[str, Any], make: MakeCheck) -> None:
        known = {"model": "m", "base_url": "http://127.0.0.1:1/v1", "price": {"input": 0, "output": 0}}
        able = ["tools", "images", "audio", "files"]
        expert = {"experts": {"obedient": known | {"capabilities": able}}, "default": ["obedient"]}
        document = PolicyDocument.model_validate({**policy, **expert})
        pool = Pool({"obedient": PoolEntry(deployments=[Deployment("one", ObedientExpert("obedient"))])})
        version = Version(document, pool, classify=lambda _: SURE, model_digest="d", checks=make)
        self._shop = Workshop()
        self.pipeline = Pipeline(
            access=Door(),  # type: ignore[arg-type]  # all that the pipeline asks of it
            policy=Published(version),
            record=lambda _: None,
            digest_key=b"suite",
            workshop=self._shop,
        )

    def close(self) -> None:
        """End the processes that read images and files."""
        self._shop.close()

    def ends(self, bodies: Iterable[Mapping[str, Any]]) -> list[Ended]:
        """How each request ends."""

        async def all_of_them() -> list[Ended]:
            return [await self._end(body) for body in bodies]

        return asyncio.run(all_of_them())

    async def _end(self, body: Mapping[str, Any]) -> Ended:
        call = Call("req_suite", Source(msgspec.json.encode(body)), parse, datetime.now(UTC), time.monotonic())
        said, refused = "", None
        try:
            async for chunk in self.pipeline.answer(call):
                if chunk is not END:
                    said += chunk.event["choices"][0]["message"]["content"] or ""
        except ConclaveError as error:
            refused = error.code or type(error).__name__
        return Ended(WORDS in said, refused, call.findings, _stages(call), _checks(call))


class Undecoding(MakeCheck):
    """Makes checks that read texts as they are written, and in no other view."""

    def __init__(self, make: MakeCheck) -> None:
        super().__init__(make._checks, make.key)
        self._make_decoding = make

    def __call__(self, settings: CheckSettings, given: Given) -> Check:
        return Plainly(self._make_decoding(settings, given))


class Plainly:
    """A check that decodes nothing."""

    decodes = False

    def __init__(self, check: Check) -> None:
        self.name, self.origins, self.inspect = check.name, check.origins, check.inspect


def checks() -> MakeCheck:
    """What makes the checks, with the shipped encoder."""
    encoder = StaticEncoder.load()
    return maker(encoder.tokens.ids, key=b"k" * 32)


def _stages(call: Call) -> dict[str, float]:
    before = call.opened_s
    spent: dict[str, float] = {}
    for name, left_s in call.stages.items():
        spent[name] = 1e3 * (left_s - before)
        before = left_s
    return spent


def _checks(call: Call) -> dict[str, float]:
    return {ran.check: ran.ms for ran in call.verdict.ran}
