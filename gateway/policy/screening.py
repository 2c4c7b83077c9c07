"""(3) The policy's defences, compiled: what the checks say of a request, and what is left of it.

Knows the checks by their names in the policy; what each looks for is in `safety/detect`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from conclave.gateway.call import ModelRequest
from conclave.gateway.policy.defences import CheckSettings
from conclave.gateway.redaction import replaced
from conclave.safety.api import Action, Check, Segment
from conclave.safety.boundary.views import views_of
from conclave.safety.checks import Checks
from conclave.safety.detect.learned import Ids
from conclave.safety.runner import Memo, Rule, Runner
from conclave.safety.verdict import NOTHING, Verdict, redacted

MakeCheck = Callable[[CheckSettings], Check]


@dataclass(frozen=True, slots=True)
class Screened:
    """A request after the checks: their verdict, and what goes on."""

    verdict: Verdict
    request: ModelRequest
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Screen:
    """The checks of one policy version for one tenant. Without a check nothing is looked at."""

    runner: Runner | None = None
    marks: tuple[tuple[str, str], ...] = ()

    def __call__(self, request: ModelRequest, segments: tuple[Segment, ...], tenant: str) -> Screened:
        """What the checks say, and the request without what they cut out. Takes as long as the checks do."""
        if self.runner is None:
            return Screened(NOTHING, request, segments)
        verdict = self.runner.screen(segments, tenant=tenant)
        cut = [one for one in verdict.acted if self.runner.action_of(one) is Action.REDACT]
        if not cut or verdict.action is Action.BLOCK:
            return Screened(verdict, request, segments)
        left = redacted(segments, cut, dict(self.marks))
        texts = {new.place: new.text for old, new in zip(segments, left, strict=True) if new is not old}
        return Screened(verdict, replace(request, body=replaced(request.body, texts)), left)


OPEN: Final = Screen()


def maker(ids: Ids) -> MakeCheck:
    """Makes the checks that a policy names; `ids` is the shared encoder's tokenizer."""
    checks = Checks(ids)
    return lambda settings: checks.make(settings.check, threshold=settings.threshold)


def compiled(checks: Sequence[CheckSettings], make: MakeCheck, memo: Memo, *, version: str, observe: bool) -> Screen:
    """The screen of the checks that are not off, in their order; with `observe` none of them acts."""
    used = [one for one in checks if one.action != "off"]
    if not used:
        return OPEN
    rules = tuple(
        Rule(
            make(one),
            action=Action.ALLOW if one.action == "observe" else Action[one.action.upper()],
            observe=observe or one.action == "observe",
            on_error=one.on_error,
            timeout_s=one.timeout_s,
        )
        for one in used
    )
    runner = Runner(rules, version=version, views_of=views_of, memo=memo)
    return Screen(runner, marks=tuple((one.check, f"[{one.check} removed]") for one in used))
