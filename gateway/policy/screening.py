"""(3) The policy's defences, compiled: what the checks say of a request, and what is left of it.

Knows the checks by their names in the policy; what each looks for is in `safety/detect`.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from conclave.gateway.call import ModelRequest
from conclave.gateway.errors import ConfirmationRequired
from conclave.gateway.policy.arms import conversation_of
from conclave.gateway.policy.defences import CheckSettings
from conclave.gateway.policy.second import CHECK as SECOND
from conclave.gateway.policy.second import SecondSettings
from conclave.gateway.policy.shift import OFF, ShiftSettings
from conclave.gateway.policy.signatures import SignatureSettings
from conclave.gateway.policy.topics import TopicSettings, examples_of
from conclave.gateway.policy.turns import CrescendoSettings
from conclave.gateway.redaction import replaced
from conclave.safety.api import INSIDE, Action, Check, Finding, Origin, Segment, Severity
from conclave.safety.boundary.views import views_of
from conclave.safety.checks import Checks
from conclave.safety.detect.crescendo import Crescendo
from conclave.safety.detect.learned import Ids
from conclave.safety.detect.topics import Space
from conclave.safety.detect.turns import TurnRunner
from conclave.safety.known import KnownRunner
from conclave.safety.runner import CHECK_FAILED, Memo, Rule, Runner
from conclave.safety.vault import Vault, unescaped
from conclave.safety.verdict import NOTHING, Verdict, redacted

KEY_BYTES: Final = 32
MOST_MADE: Final = 32  # checks that are kept for further tenants and versions
IN_JSON: Final = ".function.arguments"  # how the place of a text ends that is JSON itself


NO_SECOND: Final = SecondSettings()


@dataclass(frozen=True, slots=True)
class Given:
    """What a tenant's policy says for single checks."""

    signatures: SignatureSettings
    topics: TopicSettings
    shift: ShiftSettings = OFF
    second: SecondSettings = NO_SECOND


class MakeCheck:
    """Makes the checks that a policy names. `key` is what placeholders are derived from."""

    def __init__(self, checks: Checks, key: bytes) -> None:
        self._checks = checks
        self._made: dict[tuple[str, str], Check] = {}  # those that take time, for the tenants that share them
        self.key = key

    def __call__(self, settings: CheckSettings, given: Given) -> Check:
        """The check. Raises ValueError for rules or topics that cannot be used."""
        if settings.check == SECOND:
            return self._second(settings, given.second)
        part = {"signatures": given.signatures, "topics": given.topics}.get(settings.check)
        if part is None:
            return self._checks.make(settings.check, threshold=settings.threshold)
        name = settings.check, part.model_dump_json()
        made = self._made.get(name)
        if made is None:
            made = self._of_rules(given.signatures) if part is given.signatures else self._of_topics(given.topics)
            if len(self._made) >= MOST_MADE:
                self._made.clear()
            self._made[name] = made
        return made

    def _of_rules(self, settings: SignatureSettings) -> Check:
        return self._checks.signatures(settings.rules())

    def _of_topics(self, settings: TopicSettings) -> Check:
        return self._checks.topics(deny=examples_of(settings.deny), allow_only=examples_of(settings.allow_only))

    def _second(self, settings: CheckSettings, second: SecondSettings) -> Check:
        """What is asked in doubt; one for all tenants and versions that want the same, for it is large."""
        if second.folder is None:
            raise ValueError(f"the check {SECOND} is listed, and policy.{SECOND}.folder names no transformer")
        name = SECOND, f"{second.model_dump_json()} {settings.timeout_s}"
        if name not in self._made:
            self._made[name] = self._checks.second(
                second.folder, from_score=second.from_score, timeout_s=settings.timeout_s, threads=second.threads
            )
        return self._made[name]

    def shift(self, settings: ShiftSettings) -> Check:
        """What looks for wishes that a frame hides."""
        return self._checks.shift(threshold=settings.threshold)

    def course(self, settings: CrescendoSettings) -> Crescendo:
        """What looks at where conversations go. Raises ValueError."""
        return self._checks.crescendo(settings.topics, settings.scope, threshold=settings.threshold)


@dataclass(frozen=True, slots=True)
class Screened:
    """A request after the checks: their verdict, and what goes on.

    `vault` has what was cut out and is to stand in the answer again; None if there is nothing. `waiting` is what a
    person has to let pass, `waits` the error of a request that nobody has, `otherwise` what follows where somebody did.
    """

    verdict: Verdict
    request: ModelRequest
    segments: tuple[Segment, ...]
    vault: Vault | None = None
    waiting: tuple[Finding, ...] = ()
    otherwise: Action = Action.ANNOTATE
    waits: ConfirmationRequired | None = None


@dataclass(frozen=True, slots=True)
class Screen:
    """The checks of one policy version for one tenant. Without a check nothing is looked at.

    What those in `reversible` find is replaced by placeholders; `key` is what theirs are derived from.
    A `slow` one waits for a transformer: use it from a thread.
    """

    runner: Runner | TurnRunner | KnownRunner | None = None
    reversible: frozenset[str] = frozenset()
    key: bytes = b""
    slow: bool = False

    def __call__(self, request: ModelRequest, segments: tuple[Segment, ...], tenant: str) -> Screened:
        """What the checks say, and the request without what they cut out. Takes as long as the checks do."""
        if self.runner is None:
            return Screened(NOTHING, request, segments)
        verdict = self.runner.screen(segments, tenant=tenant)
        cut = [one for one in verdict.acted if self.runner.action_of(one) is Action.REDACT]
        waits = verdict.action is Action.CONFIRM
        waiting = tuple(one for one in verdict.acted if waits and self.runner.action_of(one) is Action.CONFIRM)
        if not cut or verdict.action is Action.BLOCK:
            return Screened(verdict, request, segments, waiting=waiting)
        vault = Vault(self._conversation_key(request, segments, tenant))
        left = redacted(segments, cut, Marks(self.reversible, vault))
        texts = {new.place: new.text for old, new in zip(segments, left, strict=True) if new is not old}
        changed = replace(request, body=replaced(request.body, texts))
        left = tuple(_in_body(segment) if segment.place in texts else segment for segment in left)
        return Screened(verdict, changed, left, vault if vault else None, waiting, Action.REDACT)

    def _conversation_key(self, request: ModelRequest, segments: Sequence[Segment], tenant: str) -> bytes:
        """The same in every turn of a conversation, and in no other; without `key` nobody can tell which it is."""
        hashed = hashlib.blake2b(key=self.key, digest_size=KEY_BYTES)
        for part in ("vault", tenant, conversation_of(request, segments)):
            raw = part.encode("utf-8", "surrogatepass")
            hashed.update(b"%d:" % len(raw) + raw)  # lengths: no two triples are the same bytes
        return hashed.digest()


@dataclass(frozen=True, slots=True)
class Marks:
    """What stands in a text for what was cut out of it; what the checks in `reversible` found goes into the vault."""

    reversible: frozenset[str]
    vault: Vault

    def __call__(self, segment: Segment, found: Sequence[Finding], text: str) -> str:
        for one in found:  # what is not to come back takes all that it overlaps with it
            if one.check not in self.reversible or one.kind == CHECK_FAILED:
                return one.instead or f"[{one.check} removed]"
        value = unescaped(text) if segment.place.endswith(IN_JSON) else text
        return self.vault.placeholder(value, label=found[0].kind.rpartition(".")[2])


def _in_body(segment: Segment) -> Segment:
    """What was read out of a file stands in the file's place, once something was cut out of it."""
    return replace(segment, place=segment.place.removesuffix(INSIDE)) if segment.origin is Origin.FILE else segment


OPEN: Final = Screen()


def maker(ids: Ids, space: Space | None = None, *, key: bytes = b"") -> MakeCheck:
    """Makes the checks that a policy names; `ids` is the shared encoder's tokenizer, `space` has its vectors.

    Without `key` another process has other placeholders for the same conversation.
    """
    return MakeCheck(Checks(ids, space), key or os.urandom(KEY_BYTES))


def compiled(  # noqa: PLR0913  what a screen is made of; keyword-only but the first three
    checks: Sequence[CheckSettings], make: MakeCheck, memo: Memo, *, given: Given, version: str, observe: bool
) -> Screen:
    """The screen of the checks that are not off, in their order; with `observe` none of them acts."""
    used = [one for one in checks if one.action != "off"]
    if not used:
        return OPEN
    rules = tuple(
        Rule(
            make(one, given),
            action=Action.ALLOW if one.action == "observe" else Action[one.action.upper()],
            observe=observe or one.action == "observe",
            on_error=one.on_error,
            timeout_s=one.timeout_s,
            from_severity=Severity[one.from_severity.upper()],
        )
        for one in used
    )
    if (shift := given.shift).mode != "off":  # its own failure has the answer looked at more closely, no more
        rules += (Rule(make.shift(shift), Action.ANNOTATE, observe=observe or shift.mode == "observe"),)
    runner = Runner(rules, version=version, views_of=views_of, memo=memo)
    reversible = frozenset(one.check for one in used if one.reversible)
    return Screen(runner, reversible, make.key, slow=any(one.check == SECOND for one in used))
