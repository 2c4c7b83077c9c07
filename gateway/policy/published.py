"""The policy that is in force: a Version, compiled to Rules once for each tenant that it treats differently.

Remembers at most one Rules for each tenant in the document and one for all others, so no caller can make it grow.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from math import inf

from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.arms import Arms
from conclave.gateway.policy.canonical import digest_of
from conclave.gateway.policy.cascade import compiled
from conclave.gateway.policy.document import ExpertSettings, Limits, PolicyDocument, StageMode, TenantOverrides
from conclave.gateway.policy.expecting import Heads
from conclave.gateway.policy.overlay import CONTROL, overlaid
from conclave.gateway.policy.own import Teach, examples_of
from conclave.gateway.policy.part import Part
from conclave.gateway.policy.prices import paid_for
from conclave.gateway.policy.recorded import basis_of
from conclave.gateway.policy.rules import Candidate, Classify, Rules
from conclave.gateway.policy.screening import OPEN, MakeCheck, Screen
from conclave.gateway.policy.screening import compiled as screen_of
from conclave.gateway.policy.table import table_of
from conclave.router.choose import Table
from conclave.safety.runner import Memo

MEMO_KEY_BYTES = 32
INPUT_SHARE = 0.75  # of a call's tokens, for one price out of two: prompts are about three times as long as answers


class Published:
    """Which version is in force. A call takes it once, and keeps it for its whole life."""

    def __init__(self, version: "Version") -> None:
        self.current = version  # replaced as a whole: who read it before goes on with what it read

    def limits_for(self, tenant: str) -> Limits:
        """The limits for a tenant's calls that begin now."""
        return self.current.limits_for(tenant)


class Version:
    """A completed document with its experts opened. `digest` is the SHA-256 (hex) of its canonical JSON.

    `heads` opens the quality head that it names; without it, a decision has only what was recorded of one.
    `number` is that of the table of versions, and `digest` as it stands there; 0 for a document that is not kept.
    `teach` makes a classifier that knows the document's own categories; without it they are not looked for.
    `checks` makes a check of the document's defences; without it requests are not looked at.
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
        self._memo = Memo(os.urandom(MEMO_KEY_BYTES))
        self._candidates = {name: candidate(name, expert) for name, expert in document.experts.items()}
        self._tables: dict[str, Table] = {"": table_of(document)}
        if (split := document.routing.split) is not None:
            self._tables["split"] = table_of(overlaid(document, split))
        self._basis = basis_of(self._candidates, *self._tables.values())
        self._for_all = self._compile(TenantOverrides())
        self._by_tenant: dict[str, Rules] = {}

    def rules_for(self, tenant: str) -> Rules:
        """The rules for a tenant's calls."""
        if tenant in self._by_tenant:
            return self._by_tenant[tenant]
        overrides = self.document.tenants.get(tenant)
        if overrides is None:
            return self._for_all
        return self._by_tenant.setdefault(tenant, self._compile(overrides))

    def limits_for(self, tenant: str) -> Limits:
        """The limits for a tenant's calls."""
        return self.rules_for(tenant).limits

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
        stages = document.stages.model_copy(update=said(tenant.stages))
        return Rules(
            digest=self.digest,
            limits=document.limits.model_copy(update=said(tenant.limits)),
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
            talks=document.routing.conversation.rule(),
            basis=self._basis,
            screen=self._screen(document, stages.detect, tenant),
        )

    def _screen(self, document: PolicyDocument, mode: StageMode, tenant: TenantOverrides) -> Screen:
        checks = document.defences if tenant.defences is None else tenant.defences
        if self._checks is None or mode == "off":
            return OPEN
        return screen_of(checks, self._checks, self._memo, version=self.digest, observe=mode == "observe")


def said(part: Part) -> dict[str, object]:
    """What a tenant's part says itself, a null too; its defaults are not said."""
    return {name: getattr(part, name) for name in part.model_fields_set}


def candidate(name: str, expert: ExpertSettings) -> Candidate:
    """What a decision needs to know of an expert: as the policy says, else as the catalog knows its model."""
    paid = paid_for(expert)
    return Candidate(
        name=name,
        capabilities=expert.can(),
        price=inf if paid is None else paid.input * INPUT_SHARE + paid.output * (1 - INPUT_SHARE),
        quality=-inf if expert.quality is None else expert.quality,
    )
