"""`conclave check-config` and `conclave route`: what a configuration means, before anything is started with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from conclave.gateway.settings import Settings
    from conclave.router.api import Classification, Decision
    from conclave.router.classify import Router

BAR_CHARS = 24
SHOWN_CATEGORIES = 5
SHOWN_CUES = 6
REASONS = {
    "category": "the row of the question's category",
    "pin": "the expert that the policy pins to the question's category",
    "quality": "the row of the question's category; of this very question another expert is expected to do better",
    "unsure": "the classifier is unsure, so the default row serves",
    "not_listed": "the policy lists no experts for this category, so the default row serves",
    "no_text": "there is no text to classify, so the default row serves",
    "routing_off": "routing is switched off, so the default row serves",
    "observe": "routing only observes, so the default row serves",
    "named": "the expert was asked for by name",
    "cheapest": "the cheapest of the row first",
    "best": "the best of the row first",
    "detour": "who is pinned, or the whole row, is not allowed or not able to answer this, so others were looked for",
}


@click.command("check-config")
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check_config(file: Path | None) -> None:
    """Say what is wrong with a configuration FILE, line by line, or what it means. Exits 1 if it cannot be used."""
    settings = loaded(file)
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(summary(settings))


@click.command("route")
@click.argument("question")
@click.option("--config", type=click.Path(path_type=Path), help="The configuration file.")
@click.option("--model", default="auto", show_default=True, help="What a caller would put into `model`.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for a program.")
def route(question: str, config: Path | None, model: str, as_json: bool) -> None:
    """Say which expert would answer QUESTION, and why. Asks nobody."""
    from conclave.gateway.access.scope import Scope  # noqa: PLC0415  commands load what they need
    from conclave.gateway.call import ModelRequest  # noqa: PLC0415
    from conclave.gateway.errors import ConclaveError  # noqa: PLC0415
    from conclave.gateway.experts.pool import Pool  # noqa: PLC0415
    from conclave.gateway.policy.expecting import opened  # noqa: PLC0415
    from conclave.gateway.policy.published import Version  # noqa: PLC0415

    settings = loaded(config)
    router = classifier_of(settings)
    version = Version(
        settings.policy,
        Pool({}),
        classify=router.classify,
        model_digest=router.digest,
        teach=router.taught,
        heads=opened,
    )
    rules = version.rules_for("")
    body = {"model": model, "messages": [{"role": "user", "content": question}]}
    request = ModelRequest(body=body, model=model, stream=False, include_usage=False, needs=frozenset())
    try:
        decision = rules.decide(request, rules.read(request), Scope())
    except ConclaveError as error:
        raise click.ClickException(error.message) from error
    cues: Sequence[tuple[str, float]] = router.explain(question).cues if decision.classification else ()
    if as_json:
        click.echo(msgspec.json.encode(for_a_program(decision, cues, version.digest)))
    else:
        click.echo(for_a_person(decision, cues))


def loaded(file: Path | None) -> "Settings":
    from conclave.gateway.policy.source import ConfigError  # noqa: PLC0415
    from conclave.gateway.settings import load_settings  # noqa: PLC0415

    try:
        return load_settings(file)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        count = len(error.problems)
        click.echo(f"{count} {'problem' if count == 1 else 'problems'}", err=True)
        raise SystemExit(1) from error


def classifier_of(settings: "Settings") -> "Router":
    """The classifier that a gateway with these settings would use."""
    from conclave.gateway.policy.classifier import opened  # noqa: PLC0415  commands load what they need

    try:
        return opened(settings.server.classifier)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def summary(settings: "Settings") -> str:
    """A configuration on one screen."""
    from conclave.gateway.experts import catalog  # noqa: PLC0415  as above
    from conclave.gateway.policy.document import BUILT_IN  # noqa: PLC0415
    from conclave.gateway.policy.table import table_of  # noqa: PLC0415

    server, policy = settings.server, settings.policy
    lines = [
        f"configuration  {settings.source or 'none: the defaults'}",
        f"API            http://{server.host}:{server.port}/v1",
        f"metrics        http://{server.admin_host}:{server.admin_port}/metrics",
        f"state          {server.state_dir}",
        f"policy         {policy.name}, routing {policy.stages.route}",
        f"classifier     {server.classifier.folder or 'the shipped one'}",
        f"prices         the shipped catalog's are of {catalog.shipped().as_of}",
        "experts",
    ]
    for name, expert in policy.experts.items():
        places = expert.resolved_deployments() if expert.kind not in BUILT_IN else ()
        built_in = "embeds texts" if expert.kind == "encoder" else "quotes documents"
        what = " at ".join(filter(None, (places[0].model, places[0].base_url))) if places else built_in
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        lines.append(f"  {name:<20} {what}{more}")
    lines.append("rows")
    table = table_of(policy)
    rows = [*table.rows.items(), ("default", table.default)]
    lines += [f"  {row:<20} {', then '.join(names)}" for row, names in rows]
    if policy.aliases:
        lines.append("aliases")
        lines += [f"  {alias:<20} {target}" for alias, target in policy.aliases.items()]
    if policy.tenants:
        lines.append(f"tenants        {', '.join(policy.tenants)}")
    return "\n".join(lines)


def for_a_program(decision: "Decision", cues: Sequence[tuple[str, float]], policy: str) -> dict[str, Any]:
    found = decision.classification
    return {
        "expert": decision.steps[0].expert,
        "fallbacks": list(dict.fromkeys(step.expert for step in decision.steps))[1:],
        "reason": decision.reason,
        "row": decision.row,
        "category": found.category if found else None,
        "confidence": found.confidence if found else None,
        "unsure": found.unsure if found else None,
        "probabilities": dict(found.probabilities) if found else None,
        "cues": [{"cue": cue, "weight": weight} for cue, weight in cues],
        "policy": policy,
        "model": decision.model_digest,
    }


def for_a_person(decision: "Decision", cues: Sequence[tuple[str, float]]) -> str:
    lines = [] if decision.classification is None else _classified(decision.classification, cues)
    first, *others = dict.fromkeys(step.expert for step in decision.steps)
    lines += [f"row        {decision.row}: {REASONS.get(decision.reason, decision.reason)}", f"expert     {first}"]
    if others:
        lines.append(f"fallbacks  {', then '.join(others)}")
    return "\n".join(lines)


def _classified(found: "Classification", cues: Sequence[tuple[str, float]]) -> list[str]:
    sure = "unsure" if found.unsure else "sure enough"
    lines = [f"category   {found.category}, confidence {found.confidence:.2f} ({sure})", ""]
    ranked = sorted(found.probabilities.items(), key=lambda item: -item[1])
    for category, probability in ranked[:SHOWN_CATEGORIES]:
        bar = "#" * round(probability * BAR_CHARS)
        lines.append(f"  {category:<20} {probability:6.1%}  {bar}".rstrip())
    lines.append("")
    if cues:
        lines.append("cues       " + ", ".join(f"{cue} ({weight:+.2f})" for cue, weight in cues[:SHOWN_CUES]))
    return lines
