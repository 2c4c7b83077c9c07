"""The policy that is in force: a Version, compiled to Rules once for each tenant that it treats differently.

Remembers at most one Rules for each tenant in the document and one for all others, so no caller can make it grow.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from urllib.parse import urlsplit

from conclave.gateway.experts.pool import Pool
from conclave.gateway.guard import Guarding
from conclave.gateway.policy.answers import OPEN as UNLOOKED
from conclave.gateway.policy.answers import compiled as guarding_of
from conclave.gateway.policy.arms import Arms
from conclave.gateway.policy.canonical import digest_of
from conclave.gateway.policy.capped import RequestCaps
from conclave.gateway.policy.cascade import compiled
from conclave.gateway.policy.choosing import Candidate, Classify
from conclave.gateway.policy.document import ExpertSettings, Limits, PolicyDocument, StageMode, TenantOverrides
from conclave.gateway.policy.envelope import seals_of
from conclave.gateway.policy.expecting import Heads
from conclave.gateway.policy.hearing import Hearing
from conclave.gateway.policy.hearing import compiled as hearing_of
from conclave.gateway.policy.links import CHECKS as LINK_CHECKS
from conclave.gateway.policy.overlay import CONTROL, overlaid
from conclave.gateway.policy.own import Teach, examples_of
from conclave.gateway.policy.packages import CHECKS as PACKAGE_CHECKS
from conclave.gateway.policy.part import Part
from conclave.gateway.policy.posture import Postures, postures_of
from conclave.gateway.policy.prices import paid_for
from conclave.gateway.policy.reading import Parts
from conclave.gateway.policy.recorded import basis_of
from conclave.gateway.policy.rules import Rules
from conclave.gateway.policy.scopes import compiled as permissions_of
from conclave.gateway.policy.screening import OPEN, Given, MakeCheck, Screen
from conclave.gateway.policy.screening import compiled as screen_of
from conclave.gateway.policy.seeking import MakeSeeking, Seeking
from conclave.gateway.policy.table import table_of
from conclave.gateway.policy.tools import compiled as gate_of
from conclave.gateway.policy.turning import with_turns
from conclave.gateway.policy.turns import CrescendoSettings
from conclave.router.choose import Table
from conclave.safety.boundary.views import views_of
from conclave.safety.detect.crescendo import Crescendo
from conclave.safety.detect.signatures import NAME as SIGNATURES
from conclave.safety.detect.signatures import AnswerSignatures
from conclave.safety.detect.standing import Band
from conclave.safety.output.api import OutputCheck
from conclave.safety.output.checks import make as answer_check
from conclave.safety.output.repetition import AnswerLimits
from conclave.safety.runner import Memo, Runner

MEMO_KEY_BYTES = 32
OPENAIS = ("api.openai.com", ".openai.azure.com")
INPUT_SHARE = 0.75  # of a call's tokens, for one price out of two: prompts are about three times as long as answers


class Published:
    """Which version is in force. A call takes it once, and keeps it for its whole life."""

    def __init__(self, version: "Version") -> None:
        self.current = version  # replaced as a whole: who read it before goes on with what it read

    def limits_for(self, tenant: str) -> Limits:
        """The limits for a tenant's calls that begin now."""
        return self.current.limits_for(tenant)

    def bands_for(self, tenant: str) -> Postures:
        """What follows from a caller's standing, for a tenant's calls that begin now."""
        return self.current.bands_for(tenant)


class Version:
    """A completed document with its experts opened. `digest` is the SHA-256 (hex) of its canonical JSON.

    `heads` opens the quality head that it names; without it, a decision has only what was recorded of one.
    `number` is that of the table of versions, and `digest` as it stands there; 0 for a document that is not kept.
    `teach` makes a classifier that knows the document's own categories; without it they are not looked for.
    `checks` makes a check of the document's defences; without it requests are not looked at. `seeks` makes what looks
    calls up; without it nothing is.
    """

    def __init__(  # noqa: PLR0913  what a version is, and what all of them share; keyword-only but the first two
        self,
        document: PolicyDocument,
        experts: Pool,
        *,
        classify: Classify,
        model_digest: str,
        heads: Heads | None = None,
        number: int = 0,
        digest: str | None = None,
        teach: Teach | None = None,
        checks: MakeCheck | None = None,
        seeks: MakeSeeking | None = None,
    ) -> None:
        self.document = document
        self.experts = experts
        self.number = number
        self.digest = digest if digest is not None else digest_of(document)
        own = document.routing.own_categories
        self._classify = teach(examples_of(own)).classify if own and teach else classify
        self._model_digest = model_digest
        self._heads = heads
        self._checks = checks
        self._seeks = seeks
        self._memo = Memo(os.urandom(MEMO_KEY_BYTES))
        self.orders = document.ooda.orders()  # to the loop over the record
        self._courses: dict[str, Crescendo] = {}
        self._candidates = {name: candidate(name, expert) for name, expert in document.experts.items()}
        self._tables: dict[str, Table] = {"": table_of(document)}
        if (split := document.routing.split) is not None:
            self._tables["split"] = table_of(overlaid(document, split))
        self._basis = basis_of(self._candidates, *self._tables.values())
        tenants = {name: said.envelope for name, said in document.tenants.items() if said.envelope is not None}
        self._seals = {name: seals_of(envelope, os.environ) for name, envelope in tenants.items()}
        seals = seals_of(document.envelope, os.environ)
        self._for_all = replace(self._compile(TenantOverrides()), seals=seals)
        self._by_tenant: dict[str, Rules] = {}

    def rules_for(self, tenant: str) -> Rules:
        """The rules for a tenant's calls."""
        if tenant in self._by_tenant:
            return self._by_tenant[tenant]
        overrides = self.document.tenants.get(tenant)
        if overrides is None:
            return self._for_all
        seals = self._seals.get(tenant, self._for_all.seals)
        return self._by_tenant.setdefault(tenant, replace(self._compile(overrides), seals=seals))

    def warm(self) -> None:
        """Let the checks that text waits for build what their first finding would wait for. Blocks: for a thread."""
        for rule in self._for_all.guarding.plan.rules:
            if rule.holds and (warm := getattr(rule.check, "warm", None)) is not None:
                warm()

    def limits_for(self, tenant: str) -> Limits:
        """The limits for a tenant's calls."""
        return self.rules_for(tenant).limits

    def bands_for(self, tenant: str) -> Postures:
        """What follows from a caller's standing, for a tenant's calls."""
        return self.rules_for(tenant).postures

    def _compile(self, tenant: TenantOverrides) -> Rules:
        rules, split = self._rules(self.document, tenant), self.document.routing.split
        other = self._rules(overlaid(self.document, split), tenant, tried="split") if split is not None else None
        if split is None or other is None or rules.route != "on":
            return rules
        control = replace(rules, arm=CONTROL)
        other = replace(other, arm=split.name)
        return replace(rules, arms=Arms(split.salt or split.name, split.share, control, other))

    def shadows_for(self, tenant: str) -> Mapping[str, Rules]:
        """The rules of the policy's shadows for a tenant's calls, compiled anew: not for the way of a call.

        They route also where routing only observes: what it would bring can be seen before it is switched on.
        """
        document, overrides = self.document, self.document.tenants.get(tenant, TenantOverrides())
        return {
            name: replace(self._rules(overlaid(document, overlay), overrides, tried=f"shadow.{name}"), route="on")
            for name, overlay in document.routing.shadow.items()
        }

    def _rules(self, document: PolicyDocument, tenant: TenantOverrides, *, tried: str = "") -> Rules:
        """What a document means for a tenant; `tried` names the overlay that was laid over this version's own."""
        if tried not in self._tables:  # for all tenants the same, and the first of them is compiled at once
            self._tables[tried] = table_of(document)
        quality = document.routing.quality
        limits = document.limits.model_copy(update=said(tenant.limits))
        stages = document.stages.model_copy(update=said(tenant.stages))
        postures = self._postures(document, stages.detect, tenant)
        return Rules(
            digest=self.digest,
            limits=limits,
            caps=caps_of(limits, self.document.experts),
            hears=AnswerLimits(limits.repeated_chars, limits.answer_chars).or_none(),
            route=stages.route,
            resumes=document.streams.model_copy(update=said(tenant.streams)).on_failure == "continue",
            keep_text=bool(said(tenant.audit).get("keep_text", document.audit.keep_text)),
            experts=self._candidates,
            table=self._tables[tried],
            aliases=document.aliases,
            allowed=frozenset(tenant.experts or self._candidates),
            classify=self._classify,
            model_digest=self._model_digest,
            expects=self._heads(quality) if self._heads is not None and quality is not None else None,
            cascade=compiled(document.routing.cascade),
            hearing=self._hearing(document, stages.retrieve, tenant),
            talks=document.routing.conversation.rule(),
            basis=self._basis,
            screen=postures.by_band[Band.OPEN].screen,
            guarding=self._guarding(document, stages.guard, tenant),
            parts=Parts(tenant.parts or document.parts, limits.text_chars),
            postures=postures,
            permissions=permissions_of(document.scopes),
            fences=document.fences.model_copy(update=said(tenant.fences)).compiled(),
            seeking=self._seeking(document, stages.retrieve, tenant, postures.by_band[Band.OPEN].screen),
            tools=gate_of(document.tools if tenant.tools is None else tenant.tools, stages.guard),
        )

    def _seeking(
        self, document: PolicyDocument, mode: StageMode, tenant: TenantOverrides, screen: Screen
    ) -> Seeking | None:
        settings = tenant.retrieval or document.retrieval
        if self._seeks is None or mode == "off" or settings.mode == "never":
            return None
        quotes = frozenset(name for name, expert in document.experts.items() if expert.kind == "quoting")
        return self._seeks(settings, screen, quotes, observe=mode == "observe")

    def _hearing(self, document: PolicyDocument, mode: StageMode, tenant: TenantOverrides) -> Hearing | None:
        settings = tenant.retrieval or document.retrieval
        return hearing_of(settings.closed_book) if mode == "on" and settings.mode != "never" else None

    def _guarding(self, document: PolicyDocument, mode: StageMode, tenant: TenantOverrides) -> Guarding:
        checks = document.answers if tenant.answers is None else tenant.answers
        if self._checks is None or mode == "off":
            return UNLOOKED
        rules = tenant.signatures or document.signatures
        packages = tenant.packages or document.packages
        links = tenant.links or document.links

        def make(name: str, canaries: Sequence[str]) -> OutputCheck:
            if name in PACKAGE_CHECKS:
                return packages.check(name)
            if name in LINK_CHECKS:
                return links.check(name)
            return AnswerSignatures(rules.rules()) if name == SIGNATURES else answer_check(name, canaries)

        shift = tenant.shift or document.shift
        return guarding_of(checks, make, canaries=document.canaries, observe=mode == "observe", shift=shift)

    def _postures(self, document: PolicyDocument, mode: StageMode, tenant: TenantOverrides) -> Postures:
        """The screens of all bands: the checks, stricter where trust is low, and the turns together."""
        turns, observe = tenant.turns or document.turns, mode == "observe"
        course = self._course(turns.crescendo) if mode != "off" else None
        empty = Runner((), version=self.digest, views_of=views_of, memo=self._memo)

        def turned(screen: Screen) -> Screen:
            if mode == "off":
                return screen
            return with_turns(screen, turns, course, empty=empty, observe=observe)

        return postures_of(
            tenant.standing or document.standing,
            self._screen(document, mode, tenant),
            turned,
            imposes=document.ooda.mode == "on",
            observe=observe,
        )

    def _course(self, settings: CrescendoSettings) -> Crescendo | None:
        """What looks at where conversations go, made once for the tenants that share it; None without topics."""
        if self._checks is None or not settings.topics:
            return None
        name = settings.model_dump_json()
        if name not in self._courses:
            self._courses[name] = self._checks.course(settings)
        return self._courses[name]

    def _screen(self, document: PolicyDocument, mode: StageMode, tenant: TenantOverrides) -> Screen:
        checks = document.defences if tenant.defences is None else tenant.defences
        if self._checks is None or mode == "off":
            return OPEN
        given = Given(
            tenant.signatures or document.signatures,
            tenant.topics or document.topics,
            tenant.shift or document.shift,
            document.second_opinion,
        )
        observe = mode == "observe"
        return screen_of(checks, self._checks, self._memo, given=given, version=self.digest, observe=observe)


def said(part: Part) -> dict[str, object]:
    """What a tenant's part says itself, a null too; its defaults are not said."""
    return {name: getattr(part, name) for name in part.model_fields_set}


def caps_of(limits: Limits, experts: Mapping[str, ExpertSettings]) -> RequestCaps:
    """What `limits` caps of a request. For some models OpenAI's own servers take only the newer name of the token
    limit, which others may not know.
    """
    return RequestCaps(
        answer_tokens=limits.answer_tokens,
        answers=limits.answers,
        effort=limits.reasoning_effort,
        tool_turns=limits.tool_turns,
        same_tool_calls=limits.same_tool_calls,
        newer=frozenset(name for name, expert in experts.items() if _is_openais(expert)),
    )


def _is_openais(expert: ExpertSettings) -> bool:
    hosts = [urlsplit(place.base_url or "").hostname or "" for place in expert.resolved_deployments()]
    return expert.kind == "openai" and any(host.endswith(OPENAIS) for host in hosts)


def candidate(name: str, expert: ExpertSettings) -> Candidate:
    """What a decision needs to know of an expert: as the policy says, else as the catalog knows its model."""
    paid = paid_for(expert)
    return Candidate(
        name=name,
        capabilities=expert.can(),
        price=inf if paid is None else paid.input * INPUT_SHARE + paid.output * (1 - INPUT_SHARE),
        quality=-inf if expert.quality is None else expert.quality,
    )
