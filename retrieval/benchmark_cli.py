"""`conclave retrieval benchmark`: how well and how fast documents are found, by meaning, by words and by both.

The encoder comes from the command line that mounts this group, as in `cli.py`.
"""

import tempfile
from pathlib import Path

import click

from conclave.retrieval.cli import encoder_of


@click.group()
def retrieval() -> None:
    """How good the search is."""


@retrieval.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--qrels", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The table of judgements.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def benchmark(context: click.Context, folder: Path, qrels: Path | None, *, as_json: bool) -> None:
    """Measure nDCG, recall and MRR on FOLDER: corpus.jsonl, queries.jsonl, qrels/test.tsv."""
    import msgspec  # noqa: PLC0415  commands load what they need

    from conclave.retrieval.benchmark import CorpusError, fill, measure, read_corpus  # noqa: PLC0415
    from conclave.retrieval.index import Snapshots  # noqa: PLC0415
    from conclave.retrieval.ingest import freshen  # noqa: PLC0415
    from conclave.retrieval.library import Library  # noqa: PLC0415
    from conclave.retrieval.search import Hybrid  # noqa: PLC0415

    encode = encoder_of(context)
    try:
        corpus = read_corpus(folder, qrels)
    except FileNotFoundError as error:
        raise click.ClickException(f"{error.filename} is not there") from error
    except (CorpusError, UnicodeDecodeError) as error:
        raise click.ClickException(str(error)) from error
    with tempfile.TemporaryDirectory(prefix="conclave-benchmark-") as place:
        library = Library.open(Path(place), make=True)
        try:
            fill(library, corpus, encode)
            snapshots = Snapshots(library.folder)
            freshen(library, snapshots, encode)
            found = {
                "meaning": measure(Hybrid(library, encode, snapshots, "meaning"), corpus),
                "words": measure(Hybrid(library, encode, snapshots, "words"), corpus),
                "hybrid": measure(Hybrid(library, encode, snapshots), corpus),
            }
        finally:
            library.close()
    if as_json:
        click.echo(msgspec.json.encode(found))
        return
    click.echo(f"{len(corpus.documents)} documents, {len(corpus.judged)} queries; mean [95 % interval]")
    for way, measured in found.items():
        said = "  ".join(
            f"{name} {one.mean:.3f} [{one.low:.3f}, {one.high:.3f}]" for name, one in measured.metrics.items()
        )
        click.echo(f"{way:8} {said}  p50 {measured.p50_ms:.1f} ms, p99 {measured.p99_ms:.1f} ms")
