"""What the checks of package names say of the shipped lists, and what they cost.

    python -m benchmarks.safety.packages

About 20 seconds. Shares are over all names of a list, each in an install command of its ecosystem; "held out" is what
is said of PyPI's names from rank 5,001 on where the list ends at 5,000. Times are CPU, of an answer of 4,096 characters
through the guard's own machine, medians of rounds that alternate between no sign found and both checks.
"""

import statistics
import time
from collections import Counter
from collections.abc import Iterable, Sequence

import click

from conclave.safety.api import Finding
from conclave.safety.output.api import Excerpt, OutputRule, Unit
from conclave.safety.output.packages.check import DependencyCheck, PackageCheck
from conclave.safety.output.packages.ecosystems import Ecosystem
from conclave.safety.output.packages.index import PackageIndex, shipped
from conclave.safety.output.packages.names import Neighbours
from conclave.safety.output.plan import Plan
from conclave.safety.output.stream import judged

COMMANDS = {
    Ecosystem.PYPI: "pip install",
    Ecosystem.NPM: "npm install",
    Ecosystem.GO: "go get",
    Ecosystem.RUBYGEMS: "gem install",
}
TOP = 5_000
ROUNDS = 41
PROSE = (
    "To serve this, install the framework and its server, and write a handler for each route. The server reloads when "
    "a file changes, so that you can try things at once. Put the settings into the environment, not into the code.\n\n"
)
CODE = (
    "```bash\npip install fastapi uvicorn[standard] pydantic-settings==2.6.1\n"
    "npm install --save-dev vite typescript\n```\n"
    "```python\nfrom fastapi import FastAPI\nimport yaml\n\napp = FastAPI()\n\n\n@app.get('/')\ndef root():\n"
    "    if app.title == 'x':\n        return {\"a\": 1}\n    return yaml.safe_load('a: 1')\n```\n"
)
ANSWER = ((PROSE + CODE) * 16)[:4096]


class Silent:
    """A check whose sign no answer has: what the machine itself costs."""

    name = "silent"
    unit: Unit = "line"
    triggers = ("\x01silent\x01",)

    def inspect(self, excerpt: Excerpt) -> Sequence[Finding]:
        raise AssertionError(f"shown {len(excerpt.text)} characters")


def graded(check: PackageCheck, ecosystem: Ecosystem, names: Iterable[str]) -> Counter[str]:
    """How many names were told as what; `nothing` where nothing was."""
    found: Counter[str] = Counter()
    for name in names:
        told = check.inspect(Excerpt(f"{COMMANDS[ecosystem]} {name}", code=True, language="bash"))
        found[told[0].kind.removeprefix("package.") if told else "nothing"] += 1
    return found


def cpu_ms(plan: Plan) -> float:
    """Of one answer."""
    started_ns = time.process_time_ns()
    judged(plan, ANSWER)
    return (time.process_time_ns() - started_ns) / 1e6


@click.command()
def main() -> None:
    """Print the numbers of the card."""
    index = shipped()
    check, withheld = PackageCheck(index=index), PackageCheck(index=PackageIndex({}, {}, index.popular))
    for ecosystem, names in index.malicious.items():
        click.echo(f"malicious, {ecosystem}: {dict(graded(check, ecosystem, names))}")
        click.echo(f"malicious, {ecosystem}, list withheld: {dict(graded(withheld, ecosystem, names))}")
    for ecosystem, used in index.popular.items():
        for label, some in ((f"first {TOP}", used[:TOP]), ("others", used[TOP:])):
            click.echo(f"much used, {ecosystem}, {label}: {dict(graded(check, ecosystem, some))}")
    held_out, first = index.popular[Ecosystem.PYPI][TOP:], Neighbours(index.popular[Ecosystem.PYPI][:TOP])
    near = sum((first.alike(name) or first.slip(name)) is not None for name in held_out)
    click.echo(f"held out, pypi: {near} of {len(held_out)} near ({near / len(held_out):.2%})")
    plans = {
        "no sign": Plan.of([OutputRule(Silent())]),
        "both": Plan.of([OutputRule(check), OutputRule(DependencyCheck(index=index))]),
    }
    taken: dict[str, list[float]] = {name: [] for name in plans}
    for _ in range(ROUNDS):
        for name, plan in plans.items():
            taken[name].append(cpu_ms(plan))
    for name, times in taken.items():
        click.echo(f"4 KB, {name}: {statistics.median(times):.2f} ms, highest of {ROUNDS} {max(times):.2f}")


if __name__ == "__main__":
    main()
