"""Measure the gateway beside F. From the repository root; wrk (Debian: apt-get install wrk) makes the load.

python -m benchmarks.gateway run                                   all targets, 5 rounds of 3 s a measurement
python -m benchmarks.gateway run --targets F,conclave --rounds 3
python -m benchmarks.gateway run --targets F,conclave --defences   Conclave twice: lean, and with every defence
python -m benchmarks.gateway peers                                 install LiteLLM's proxy and Portkey, once
python -m benchmarks.gateway run --targets F,conclave,Portkey,LiteLLM
python -m benchmarks.gateway report benchmarks/gateway/results/FILE.csv
python -m benchmarks.gateway profile conclave --load stream.c16    py-spy flame graph under load
"""

import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import click

from benchmarks.gateway import peers as others
from benchmarks.gateway import targets as known
from benchmarks.gateway.chart import draw
from benchmarks.gateway.conclave import DEFENDED, conclave
from benchmarks.gateway.load import LoadError, drive, require_wrk
from benchmarks.gateway.results import Place, Results, read_csv, write_csv
from benchmarks.gateway.rounds import LOADS, Maker, Plan
from benchmarks.gateway.rounds import run as run_rounds
from benchmarks.gateway.servers import TargetError, running
from benchmarks.gateway.table import markdown, put_into
from benchmarks.gateway.targets import CONCLAVE, REFERENCE, ROOT

RESULTS: Final = ROOT / "benchmarks" / "gateway" / "results"
PAGE: Final = ROOT / "docs" / "performance.md"
CHART: Final = ROOT / "docs" / "img" / "gateway-benchmark.svg"
MAKERS: Final[dict[str, Maker]] = {
    REFERENCE: lambda upstream, _: known.reference(upstream),
    "bare": lambda upstream, _: known.bare(upstream),
    CONCLAVE: conclave,
    others.PORTKEY: others.portkey,
    others.LITELLM: others.litellm,
}
USUAL: Final = (REFERENCE, "bare", CONCLAVE)  # what needs no further installation
SAMPLES_PER_S: Final = 500


@click.group(help=__doc__.partition("\n")[0] if __doc__ else None)
def main() -> None:
    signal.signal(signal.SIGTERM, _stop)  # so that the servers are ended too


def _stop(signum: int, frame: object) -> NoReturn:  # noqa: ARG001  the signal handler's signature
    raise KeyboardInterrupt


@main.command()
@click.option(
    "--targets",
    default=",".join(USUAL),
    show_default=True,
    help=f"Comma-separated, of {', '.join(MAKERS)}; the mock itself is always measured.",
)
@click.option(
    "--also", type=click.Path(exists=True, path_type=Path), help="YAML list of more targets, see targets.also."
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 50))
@click.option("--seconds", default=3, show_default=True, type=click.IntRange(1, 60), help="Length of one measurement.")
@click.option("--defences", is_flag=True, help=f"Measure Conclave a second time, as {DEFENDED!r}.")
@click.option("--docs/--no-docs", default=True, help="Write the table and the chart into docs/.")
def run(  # noqa: PLR0913  one parameter an option
    targets: str, also: Path | None, rounds: int, seconds: int, *, defences: bool, docs: bool
) -> None:
    """Measure, print the table, keep the CSV."""
    _warn_if_busy()
    results = Results(Place.here())
    try:
        require_wrk()
        makers = [_maker(name) for name in targets.split(",")]
        makers += [partial(conclave, defences=True)] if defences else []
        makers += known.also(also) if also else []
        run_rounds(makers, Plan(rounds, seconds), results, _say)
    except (LoadError, TargetError) as error:
        raise click.ClickException(str(error)) from error
    file = RESULTS / f"{results.place.date[:10]}-{results.place.commit.rstrip('+')}.csv"
    write_csv(results, file)
    _say(f"wrote {file.relative_to(ROOT)}")
    _show(results, docs=docs)


def _maker(name: str) -> Maker:
    if name not in MAKERS:
        raise click.BadParameter(f"no target {name!r}; there are {', '.join(MAKERS)}")
    return MAKERS[name]


@main.command("peers")
def install_peers() -> None:
    """Install the peers, LiteLLM's proxy and Portkey, into `.peers`: from then on they can be measured, too."""
    try:
        others.install()
    except TargetError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--docs/--no-docs", default=True, help="Write the table and the chart into docs/.")
def report(file: Path, *, docs: bool) -> None:
    """Make the table and the chart again from a CSV."""
    _show(read_csv(file), docs=docs)


def _show(results: Results, *, docs: bool) -> None:
    table = markdown(results)
    click.echo(table)
    if docs:
        put_into(PAGE, table)
        draw(results, CHART)
        _say(f"wrote {PAGE.relative_to(ROOT)} and {CHART.relative_to(ROOT)}")


@main.command()
@click.argument("target", type=click.Choice(list(MAKERS)))
@click.option(
    "--load", "name", default="plain.c16", show_default=True, type=click.Choice([load.name for load in LOADS])
)
@click.option("--seconds", default=10, show_default=True, type=click.IntRange(2, 120))
@click.option("--out", default="profile.svg", show_default=True, type=click.Path(path_type=Path))
def profile(target: str, name: str, seconds: int, out: Path) -> None:
    """Draw a flame graph of a target under load with py-spy."""
    load = next(load for load in LOADS if load.name == name)
    with ExitStack() as stack:
        mock = known.mock()
        stack.enter_context(running(mock))
        server = stack.enter_context(running(_maker(target)(mock.base_url, stack)))
        drive(server.target, load, seconds=1)
        with _recording(server.process.pid, seconds, out) as recorder:
            measured = drive(server.target, load, seconds=seconds)
            recorder.wait(seconds)
    _say(f"{measured.requests} requests while py-spy watched; wrote {out}")


def _recording(pid: int, seconds: int, out: Path) -> "subprocess.Popen[bytes]":
    spy = Path(sys.executable).with_name("py-spy")
    found = str(spy) if spy.exists() else shutil.which("py-spy")
    if found is None:
        raise click.ClickException("py-spy is not installed: pip install py-spy")
    flags = ["--rate", str(SAMPLES_PER_S), "--duration", str(seconds - 1), "--output", str(out)]
    return subprocess.Popen([found, "record", "--pid", str(pid), *flags])


def _warn_if_busy() -> None:
    busy, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if busy > cores / 2:
        _say(f"warning: the machine is busy (load {busy:.1f} on {cores} cores); expect noise")


def _say(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main()
