"""`conclave router`: classify files, measure the shipped router, train it again. Human words go to stderr."""

import gzip
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

import click

from conclave.router.api import Classification

if TYPE_CHECKING:
    from conclave.router.classify import Router
    from conclave.router.outcomes import Graded

DATA: Final = "CONCLAVE_DATA"
TRAIN_EXTRA: Final = ("numba", "threadpoolctl")
STATIC: Final = "static"  # the built-in encoder
_folder = click.Path(exists=True, file_okay=False, path_type=Path)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def router() -> None:
    """The classifier that says which category a prompt belongs to."""


@router.command()
@click.option("--jsonl", "file", required=True, metavar="FILE", help="A .jsonl or .jsonl.gz file, or - for stdin.")
@click.option("--field", default="text", show_default=True, help="The key that holds the text.")
@click.option("--classifier", type=_folder, help="The folder of a classifier of your own. Default: the shipped one.")
def classify(file: str, field: str, classifier: Path | None) -> None:
    """Classify each row of FILE: one JSON line a row, on stdout.

    A row that is no JSON object, has no text, or has an id that cannot be written again, is reported on stderr with its
    line number; the others are classified, and the exit status is 1 at the end.
    """
    import msgspec  # noqa: PLC0415  the group is mounted by the main command: its imports are everyone's
    from tqdm import tqdm  # noqa: PLC0415

    model = _classifier(classifier)
    out = sys.stdout.buffer
    bad = 0
    with lines_of(file) as lines:
        for number, line in enumerate(tqdm(lines, unit=" rows", disable=None, file=sys.stderr), start=1):
            if not line.strip():
                continue
            try:
                row = read_row(line)
                text, name = text_of(row, field), id_of(row, number)
            except ValueError as error:
                bad += 1
                click.echo(f"{file}: line {number}: {error}", err=True)
                continue
            out.write(msgspec.json.encode(as_row(name, found := model.classify(text), model.credible(found))) + b"\n")
    if bad:
        click.echo(f"{bad} bad row{'s' if bad > 1 else ''} skipped", err=True)
        sys.exit(1)


@router.command()
@click.option("--data", envvar=DATA, required=True, type=_folder, help=f"Folder of category_dev; or {DATA}.")
@click.option("--classifier", type=_folder, help="The folder of a classifier of your own. Default: the shipped one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def evaluate(data: Path, classifier: Path | None, *, as_json: bool) -> None:
    """Measure the shipped classifier, or yours, on category_dev: accuracy, calibration, confusions, typos, speed."""
    import msgspec  # noqa: PLC0415

    from conclave.router.evaluate.report import evaluate as measure  # noqa: PLC0415
    from conclave.router.evaluate.table import lay_out  # noqa: PLC0415

    report = measure(_classifier(classifier), data)
    click.echo(msgspec.json.encode(report).decode() if as_json else lay_out(report))


@router.command()
@click.option("--data", envvar=DATA, required=True, type=_folder, help=f"Folder of category_train; or {DATA}.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="The classifier's folder. Default: ours.",
)
@click.option(
    "--encoder",
    default=STATIC,
    show_default=True,
    metavar="static|FOLDER",
    help="What makes a text's vector: the static encoder, or the transformer in a folder (needs the extra `moe`).",
)
@click.option(
    "--share", default=1.0, show_default=True, type=click.FloatRange(min=0, min_open=True, max=1),
    help="Of the rows, to try something out in less time.",
)  # fmt: skip
def train(data: Path, out: Path | None, encoder: str, share: float) -> None:
    """Train the shipped classifier again, bit for bit, or one of your own; needs the `train` extra.

    A transformer's folder is one as sentence-transformers writes it: config.json, tokenizer.json, model.safetensors.
    `server.classifier.folder` of the configuration names the classifier's folder, OUT.
    """
    from conclave.router.encoder import ARTIFACTS  # noqa: PLC0415

    ours = out is None or out.resolve() == ARTIFACTS.resolve()
    if ours and (encoder != STATIC or share < 1):
        raise click.UsageError("name a folder for it with --out: the shipped classifier stays as it is")
    with _train_extra():
        from conclave.router.train.run import train as run  # noqa: PLC0415
    try:
        run(
            data,
            out or ARTIFACTS,
            encoder=None if encoder == STATIC else Path(encoder),
            share=share,
            say=lambda line: click.echo(line, err=True),
        )
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


@router.command()
@click.option(
    "--outcomes", "files", multiple=True, required=True, type=_file, help="Outcome rows, .jsonl or .jsonl.gz."
)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Where the head goes.")
@click.option("--apart", is_flag=True, help="For questions of subjects that the outcomes lack: by words alone.")
@click.option("--scores-only", is_flag=True, help="No head: rows that name their category need no prompt.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def fit(files: tuple[Path, ...], out: Path, *, apart: bool, scores_only: bool, as_json: bool) -> None:
    """Make the policy's `routing.scores` and a quality head from outcome data, and say whether routing pays.

    A row is {"prompt", "scores": {expert: 0..1}}, with "category", "subset", "dataset", "id" and "cost" if known;
    experts by the policy's names. Files with bad rows are refused, every bad row is named, and the exit status is 1.
    """
    import msgspec  # noqa: PLC0415

    if scores_only:
        _fit_scores(_outcomes(files, bare=True), out)
        return
    rows = _outcomes(files)
    with _train_extra():
        from conclave.router.evaluate.fitted import fit_to, lay_out  # noqa: PLC0415

        try:
            with _own_stdout():
                found = fit_to(rows, files, out, apart=apart, say=lambda line: click.echo(line, err=True))
        except ValueError as error:
            raise click.ClickException(str(error)) from error
    click.echo(msgspec.json.encode(found).decode() if as_json else lay_out(found))


@router.command()
@click.option("--data", envvar=DATA, required=True, type=_folder, help=f"Folder of category_train; or {DATA}.")
@click.option("--outcomes", "files", multiple=True, type=_file, help="Outcome rows. Default: the data folder's.")
@click.option("--splits", default="", metavar="NAMES", help="Of 5-fold,leave-subjects-out,leave-dataset-out.")
@click.option("--rows", default=0, type=click.IntRange(min=0), help="At most so many of each pool; 0: all.")
@click.option("--charts", type=click.Path(file_okay=False, path_type=Path), help="A folder for a chart of each result.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
def benchmark(  # noqa: PLR0913  one parameter an option
    data: Path, files: tuple[Path, ...], splits: str, rows: int, charts: Path | None, *, as_json: bool
) -> None:
    """Compare ways to choose an expert on real outcomes: best single, maps, the learned head, the oracle."""
    import msgspec  # noqa: PLC0415

    with _train_extra():
        from conclave.router.evaluate.benchmark import benchmark as run  # noqa: PLC0415
        from conclave.router.evaluate.lines import draw, lay_out  # noqa: PLC0415
        from conclave.router.evaluate.pools import SPLITS, file_pools, folder_pools  # noqa: PLC0415

    wanted = [name.strip() for name in splits.split(",") if name.strip()] or list(SPLITS)
    if unknown := [name for name in wanted if name not in SPLITS]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(SPLITS)}", param_hint="--splits")
    try:
        pools = [pool for file in files for pool in file_pools(file)] if files else list(folder_pools(data))
        with _own_stdout():
            found = run(pools, data, splits=wanted, rows=rows, say=lambda line: click.echo(line, err=True))
    except (ValueError, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from error
    if charts is not None:
        for result in found.results:
            click.echo(f"chart: {draw(result, charts)}", err=True)
    click.echo(msgspec.json.encode(found).decode() if as_json else lay_out(found))


def _classifier(folder: Path | None) -> "Router":
    """The shipped classifier, or the one in a folder."""
    from conclave.router.classify import Router  # noqa: PLC0415  the group is mounted by the main command

    try:
        return Router.load(folder)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def _own_stdout() -> Iterator[None]:
    """What the solver's library writes to stdout by itself goes to stderr: `--json` promises one object."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _fit_scores(rows: "list[Graded]", out: Path) -> None:
    """Write and print the table alone, as `routing.scores` takes it."""
    import msgspec  # noqa: PLC0415

    from conclave.router.classify import Router  # noqa: PLC0415
    from conclave.router.scores import score_table  # noqa: PLC0415

    unnamed = [row.prompt for row in rows if row.category is None]
    found = iter(Router.load().classify_batch(unnamed) if unnamed else ())
    shares = [next(found).probabilities if row.category is None else {row.category: 1.0} for row in rows]
    table = msgspec.json.format(msgspec.json.encode(score_table(rows, shares)), indent=2)
    out.mkdir(parents=True, exist_ok=True)
    (out / "scores.json").write_bytes(table + b"\n")
    click.echo(table.decode())


def _outcomes(files: tuple[Path, ...], *, bare: bool = False) -> "list[Graded]":
    from conclave.router.outcomes import BadRows, read_outcomes  # noqa: PLC0415

    try:
        return read_outcomes(files, bare=bare)
    except BadRows as error:
        click.echo(str(error), err=True)
        click.echo(f"{error.total} bad row{'s' if error.total > 1 else ''}: nothing was made", err=True)
        sys.exit(1)


@contextmanager
def _train_extra() -> Iterator[None]:
    """Turns a missing library of the `train` extra into what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in TRAIN_EXTRA:
            raise
        raise click.ClickException(
            f"{error.name} is not installed: run `make install EXTRAS=train` in the repository"
        ) from error


def read_row(line: bytes) -> dict[str, object]:
    """One line's object; raises ValueError."""
    import json  # noqa: PLC0415

    import msgspec  # noqa: PLC0415

    try:
        try:
            row = msgspec.json.decode(line)
        except msgspec.DecodeError:
            row = json.loads(line)  # it alone takes lone surrogates, which real logs hold
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} (column {error.colno})") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  a wrong row, not a wrong call
    return row


def text_of(row: dict[str, object], field: str) -> str:
    """The row's text; raises ValueError."""
    if field not in row:
        raise ValueError(f"no {field!r}; --field names the key that holds the text")
    text = row[field]
    if not isinstance(text, str):
        raise ValueError(f"{field!r} is no string")  # noqa: TRY004  a wrong row, not a wrong call
    return text


def id_of(row: dict[str, object], number: int) -> object:
    """The row's id, else its line's number; raises ValueError."""
    import msgspec  # noqa: PLC0415

    try:
        return msgspec.Raw(msgspec.json.encode(row.get("id", number)))
    except (UnicodeEncodeError, RecursionError):
        raise ValueError("'id' cannot be written as JSON in UTF-8") from None


def as_row(name: object, found: Classification, credible: tuple[str, ...]) -> dict[str, object]:
    """What `classify` writes for a row."""
    return {
        "id": name,
        "category": found.category,
        "confidence": found.confidence,
        "unsure": found.unsure,
        "credible": credible,
        "probabilities": found.probabilities,
    }


@contextmanager
def lines_of(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with _open(file) as lines:
            yield lines
    except BrokenPipeError:
        raise  # the reader of our output left: click knows what to do
    except (OSError, EOFError) as error:
        raise click.ClickException(f"{file}: {getattr(error, 'strerror', None) or error}") from error


def _open(file: str) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file, "rb")) if file.endswith(".gz") else Path(file).open("rb")
