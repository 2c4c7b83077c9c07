"""The policy that is in force: a Version, compiled to Rules once for each tenant that it treats differently.

Remembers at most one Rules for each tenant in the document and one for all others, so no caller can make it grow.
"""

from math import inf

from conclave.gateway.experts.catalog import Facts, facts_of
from conclave.gateway.experts.pool import Pool
from conclave.gateway.policy.canonical import digest_of
from conclave.gateway.policy.document import BUILT_IN, ExpertSettings, Limits, PolicyDocument, TenantOverrides
from conclave.gateway.policy.part import Part
from conclave.gateway.policy.rules import Candidate, Classify, Rules

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

    `number` is that of the table of versions, and `digest` as it stands there; 0 for a document that is not kept.
    """

    def __init__(  # noqa: PLR0913  what a version is, and what all of them share; keyword-only but the first two
        self,
        document: PolicyDocument,
        experts: Pool,
        *,
        classify: Classify,
        model_digest: str,
        number: int = 0,
        digest: str | None = None,
    ) -> None:
        self.document = document
        self.experts = experts
        self.number = number
        self.digest = digest if digest is not None else digest_of(document)
        self._classify = classify
        self._model_digest = model_digest
        self._candidates = {name: candidate(name, expert) for name, expert in document.experts.items()}
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
        document = self.document
        stages = document.stages.model_copy(update=said(tenant.stages))
        return Rules(
            digest=self.digest,
            limits=document.limits.model_copy(update=said(tenant.limits)),
            route=stages.route,
            resumes=document.streams.model_copy(update=said(tenant.streams)).on_failure == "continue",
            keep_text=bool(said(tenant.audit).get("keep_text", document.audit.keep_text)),
            experts=self._candidates,
            rows={category: row for category, row in document.categories.items()},  # noqa: C416  str keys, not literals
            default=document.default,
            aliases=document.aliases,
            allowed=frozenset(tenant.experts or self._candidates),
            classify=self._classify,
            model_digest=self._model_digest,
        )


def said(part: Part) -> dict[str, object]:
    """What a tenant's part says itself, a null too; its defaults are not said."""
    return {name: getattr(part, name) for name in part.model_fields_set}


def candidate(name: str, expert: ExpertSettings) -> Candidate:
    """What a decision needs to know of an expert: as the policy says, else as the catalog knows its model."""
    if expert.kind in BUILT_IN:
        known = Facts(input=0.0, output=0.0)
    else:
        place = expert.resolved_deployments()[0]
        known = facts_of(place.model or "", place.base_url, kind=expert.kind)
    if expert.price is not None:
        paid: tuple[float | None, float | None] = expert.price.input, expert.price.output
    else:
        paid = known.input, known.output
    return Candidate(
        name=name,
        capabilities=expert.can(),
        price=inf if paid[0] is None or paid[1] is None else paid[0] * INPUT_SHARE + paid[1] * (1 - INPUT_SHARE),
        quality=-inf if expert.quality is None else expert.quality,
    )
