"""What the policy's `standing` means for one tenant's calls, compiled: a screen, limits and reach for each band.

Nothing here is milder than what holds for everybody, and nothing widens what admission granted. Trust itself is counted
elsewhere (`access/standing.py`); this page only says what follows from it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import Forbidden
from conclave.gateway.policy.screening import OPEN, Screen
from conclave.gateway.policy.standing import StandingSettings, WatchSettings
from conclave.safety.api import Action, Severity
from conclave.safety.detect.learned import LearnedCheck
from conclave.safety.detect.standing import NO_ATTACK, Band
from conclave.safety.known import KnownRunner
from conclave.safety.runner import Rule, Runner

if TYPE_CHECKING:
    from conclave.gateway.access.scope import Grant
    from conclave.gateway.access.standing import Stood

CONFINED: Final = "restricted_standing"  # the code of what a band refuses
ANY: Final = "any"
ATTACKS: Final = "attacks"  # what honest people cause, such as an address in a text, is none


@dataclass(frozen=True, slots=True)
class Posture:
    """What holds in one band."""

    screen: Screen = OPEN
    tools: bool = True
    experts: frozenset[str] | None = None
    requests_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Postures:
    """A tenant's bands. `follows`: trust counts; `imposes`: what the OODA loop imposes counts."""

    by_band: tuple[Posture, Posture, Posture] = field(default_factory=lambda: (Posture(), Posture(), Posture()))
    counts: bool = False
    follows: bool = False
    imposes: bool = False
    of_key: bool = True
    of_conversation: bool = True

    def at_door(self, trust: float, imposed: Band) -> int | None:
        """The requests a minute that a key may make in its band; None: as many as `limits` say."""
        band, followed = self.band(trust, 1.0, imposed)
        return self.by_band[band].requests_per_minute if followed else None

    def band(self, key: float, conversation: float, imposed: Band) -> tuple[Band, bool]:
        """The band, and whether it is followed: what is only observed never hides what is imposed."""
        earned = max(
            Band.of(key) if self.of_key else Band.OPEN, Band.of(conversation) if self.of_conversation else Band.OPEN
        )
        held = imposed if self.imposes else Band.OPEN
        if self.follows:
            return max(earned, held), True
        return (held, True) if held > Band.OPEN else (earned, False)

    def hold(self, stood: "Stood | None", grant: "Grant", request: ModelRequest) -> "tuple[Grant, Screen]":
        """What the call may do where it stands, and which checks look at it. Raises Forbidden."""
        posture = self.by_band[stood.band if stood is not None and stood.followed else Band.OPEN]
        if not posture.tools and "tools" in request.needs:
            raise Forbidden(
                "too many calls of this key or conversation were refused: it may not offer tools for now",
                param="tools",
                code=CONFINED,
            )
        screen = milder(posture.screen, self.by_band[Band.OPEN].screen, stood.passed if stood is not None else ())
        if posture.experts is None:
            return grant, screen
        reach = posture.experts if grant.scope.experts is None else posture.experts & grant.scope.experts
        return replace(grant, scope=replace(grant.scope, experts=reach)), screen


ALL_OPEN: Final = Postures()


def milder(screen: Screen, usual: Screen, passed: Collection[str]) -> Screen:
    """The screen of a band, which judges as `usual` what stands at the places of texts that were let pass before."""
    strict, mild = screen.runner, usual.runner
    if not passed or strict is None or mild is None or isinstance(strict, KnownRunner) or isinstance(mild, KnownRunner):
        return screen
    return replace(screen, runner=KnownRunner(strict, mild, frozenset(passed)))


def stricter(screen: Screen, band: WatchSettings) -> Screen:
    """The screen as it is in a band: the same checks in the same order, none of them milder."""
    runner = screen.runner
    if not isinstance(runner, Runner):
        return screen
    rules = tuple(_stricter(rule, band) for rule in runner.rules)
    # what a check finds depends on its threshold and not on what follows: only then is it remembered apart
    version = runner.version if band.threshold_factor == 1 else f"{runner.version}*{band.threshold_factor:g}"
    return replace(screen, runner=replace(runner, rules=rules, version=version))


def _stricter(rule: Rule, band: WatchSettings) -> Rule:
    check = rule.check
    if isinstance(check, LearnedCheck):
        check = replace(check, threshold=check.threshold * band.threshold_factor)
    of_all = ANY in band.block or (ATTACKS in band.block and check.name not in NO_ATTACK)
    if (of_all or check.name in band.block) and not rule.observe:
        return replace(rule, check=check, action=Action.BLOCK, observe=False, from_severity=Severity.LOW)
    return replace(rule, check=check)


def postures_of(
    settings: StandingSettings, screen: Screen, turned: Callable[[Screen], Screen], *, imposes: bool, observe: bool
) -> Postures:
    """All bands of a tenant. `turned` makes a screen look at turns, too; with `observe` no check acts in any band."""

    def posture(band: WatchSettings) -> Posture:
        experts = frozenset(band.experts) if band.experts is not None else None
        held = turned(screen if observe else stricter(screen, band))
        return Posture(held, band.tools, experts, band.requests_per_minute)

    return Postures(
        by_band=(Posture(turned(screen)), posture(settings.watch), posture(settings.restricted)),
        counts=settings.mode != "off" or imposes,
        follows=settings.mode == "on",
        imposes=imposes,
        of_key=settings.of != "conversation",
        of_conversation=settings.of != "key",
    )
