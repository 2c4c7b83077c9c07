"""`conclave router explain`: why a text, or each row of a file, goes to the expert that it goes to. Asks nobody."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from conclave.gateway.policy.cli import classifier_of, for_a_person, for_a_program, loaded
from conclave.router.cli import id_of, lines_of, read_row, text_of

if TYPE_CHECKING:
    from conclave.gateway.call import ModelRequest
    from conclave.gateway.policy.asked import Asked
    from conclave.gateway.policy.explained import Considered
    from conclave.gateway.policy.rules import Rules
    from conclave.router.api import Decision


@dataclass(frozen=True, slots=True)
class Explained:
    """A decision, every expert of the policy, the strongest cues, and whom each shadow and arm would ask first."""

    decision: "Decision"
    experts: "tuple[Considered, ...]"
    cues: Sequence[tuple[str, float]]
    trials: Mapping[str, str | None]


@click.command()
@click.argument("text", required=False)
@click.option("--jsonl", "file", metavar="FILE", help="Each row of a .jsonl or .jsonl.gz file, or of - for stdin.")
@click.option("--field", default="prompt", show_default=True, help="With --jsonl: the key that holds the text.")
@click.option("--config", type=click.Path(path_type=Path), help="The configuration file.")
@click.option("--model", default="auto", show_default=True, help="What a caller would put into `model`.")
@click.option("--tenant", default="", help="Whose call it would be.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for a program; so are the rows of --jsonl.")
def explain(  # noqa: PLR0913, PLR0917  the command's options
    text: str | None, file: str | None, field: str, config: Path | None, model: str, tenant: str, *, as_json: bool
) -> None:
    """Say why TEXT goes where it goes: category, cues, row, and for every expert its place or what keeps it out."""
    if (text is None) == (file is None):
        raise click.UsageError("give either a TEXT or --jsonl FILE")
    explainer = Explainer(config, model=model, tenant=tenant)
    if text is not None:
        try:
            found = explainer.explain(text)
        except ValueError as error:
            raise click.ClickException(str(error)) from error
        click.echo(msgspec.json.encode(_told(found, explainer.digest)).decode() if as_json else _shown(found))
        return
    bad = 0
    with lines_of(file or "-") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = read_row(line)
                found = explainer.explain(text_of(row, field))
                told = {"id": id_of(row, number), **_told(found, explainer.digest)}
            except ValueError as error:
                bad += 1
                click.echo(f"{file}: line {number}: {error}", err=True)
                continue
            click.echo(msgspec.json.encode(told).decode())
    if bad:
        click.echo(f"{bad} bad row{'s' if bad > 1 else ''} skipped", err=True)
        sys.exit(1)


class Explainer:
    """The policy of a file, with the classifier."""

    def __init__(self, config: Path | None, *, model: str, tenant: str) -> None:
        from conclave.gateway.experts.pool import Pool  # noqa: PLC0415  commands load what they need
        from conclave.gateway.policy.expecting import opened  # noqa: PLC0415
        from conclave.gateway.policy.published import Version  # noqa: PLC0415

        settings = loaded(config)
        self._router = classifier_of(settings)
        version = Version(
            settings.policy,
            Pool({}),
            classify=self._router.classify,
            model_digest=self._router.digest,
            teach=self._router.taught,
            heads=opened,
        )
        self.digest = version.digest
        self._model = model
        self._rules = version.rules_for(tenant)
        self._trials = {f"shadow {name}": shadow for name, shadow in version.shadows_for(tenant).items()}
        if (arms := self._rules.arms) is not None:
            self._trials[f"arm {arms.other.arm}"] = arms.other

    def explain(self, text: str) -> Explained:
        """Raises ValueError for a text that no expert could be asked."""
        from conclave.gateway.access.scope import Scope  # noqa: PLC0415  as above
        from conclave.gateway.call import ModelRequest  # noqa: PLC0415
        from conclave.gateway.errors import ConclaveError  # noqa: PLC0415
        from conclave.gateway.policy.explained import considered  # noqa: PLC0415

        body = {"model": self._model, "messages": [{"role": "user", "content": text}]}
        request = ModelRequest(body=body, model=self._model, stream=False, include_usage=False, needs=frozenset())
        try:
            asked = self._rules.asked(request, self._rules.read(request), Scope())
            decision = self._rules.choose(asked)
        except ConclaveError as error:
            raise ValueError(error.message) from error
        cues = self._router.explain(text).cues if decision.classification else ()
        trials = {name: self._tried(trial, request, asked) for name, trial in self._trials.items()}
        return Explained(decision, considered(self._rules, asked, decision), cues, trials)

    def _tried(self, trial: "Rules", request: "ModelRequest", asked: "Asked") -> str | None:
        """Whom a shadow would ask, from what the policy found of the text; an arm reads it itself. None: nobody."""
        from conclave.gateway.access.scope import Scope  # noqa: PLC0415  as above
        from conclave.gateway.errors import ConclaveError  # noqa: PLC0415

        try:
            live = trial.arm is not None
            found = trial.decide(request, trial.read(request), Scope()) if live else trial.choose(asked)
        except ConclaveError:
            return None
        return found.steps[0].expert


def _told(found: Explained, digest: str) -> dict[str, Any]:
    told = for_a_program(found.decision, found.cues, digest)
    return {**told, "experts": [asdict(one) for one in found.experts], "trials": found.trials}


def _shown(found: Explained) -> str:
    head = f"{'expert':<24} {'expected':>8} {'USD/M':>8}  place, or why not"
    lines = [for_a_person(found.decision, found.cues), "", head]
    for one in found.experts:
        expected = "-" if one.expected is None else f"{one.expected:.3f}"
        price = "-" if one.price is None else f"{one.price:.2f}"
        place = "" if one.place is None else f"fallback {one.place}: " if one.place else "asked first: "
        lines.append(f"{one.expert:<24} {expected:>8} {price:>8}  {place}{one.why}")
    lines += [f"{name:<24} would ask {expert or 'nobody'}" for name, expert in found.trials.items()]
    return "\n".join(lines)
