"""`conclave knowledge`: put documents into a library, look what is in it, search it, and take things out for good.

The command line that mounts this group puts a loader of the encoder into the context (`ctx.meta[ENCODER]`), and the key
that signs receipts (`SIGNER`) with what checks it (`CHECKER`): whose they are, is not for this room to know. What a
program reads goes to stdout, human words to stderr.
"""

import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from conclave.retrieval.acl import checked_name, checked_tags
from conclave.retrieval.api import Encode, Trust

if TYPE_CHECKING:
    from conclave.retrieval.forget import Wanted
    from conclave.retrieval.index import Snapshots
    from conclave.retrieval.library import Document, Library
    from conclave.retrieval.receipts import IsSigned, Signer

ENCODER: Final = "retrieval: load the encoder"
SIGNER: Final = "retrieval: open the key that signs receipts"
CHECKER: Final = "retrieval: what knows its signatures"
STATE_DIR: Final = "CONCLAVE__SERVER__STATE_DIR"
TRUSTS: Final = [one.name.lower() for one in Trust]
SHOWN_CHARS: Final = 200
LoadEncoder = Callable[[], Encode]
OpenSigner = Callable[[Path], "Signer"]  # by the state folder; raises OSError, ValueError
MakeChecker = Callable[[Path, str | None], "IsSigned"]  # as this; public keys (PEM) to trust instead of the folder's


@click.group()
@click.option(
    "--state-dir",
    envvar=STATE_DIR,
    default=".conclave",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The gateway's state folder; the library is its subfolder knowledge/.",
)
@click.pass_context
def knowledge(context: click.Context, state_dir: Path) -> None:
    """Documents that answers can be looked up in: add, list, search, verify, remove, forget."""
    context.meta[STATE_DIR] = state_dir / "knowledge"


@dataclass(frozen=True, slots=True)
class Desk:
    """An open library, its snapshots, and the encoder of its vectors."""

    library: "Library"
    snapshots: "Snapshots"
    encode: Encode


def _tags(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return checked_tags(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _name(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else checked_name(value, what="a collection")
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@knowledge.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--collection", default="default", show_default=True, callback=_name, help="Where the documents belong.")
@click.option(
    "--acl",
    "tags",
    multiple=True,
    callback=_tags,
    metavar="TAG",
    help="Only callers with this tag, or another --acl, may read them.",
)
@click.option("--public", is_flag=True, help="Take the tags of known documents off: all callers may read them.")
@click.option("--trust", type=click.Choice(TRUSTS), help="How far you vouch for them; a new document: normal.")
@click.option("--tokens", default=300, show_default=True, type=click.IntRange(20, 2000), help="Length of a passage.")
@click.option(
    "--overlap",
    default=40,
    show_default=True,
    type=click.IntRange(0, 500),
    help="Tokens that a passage repeats of the one before it.",
)
@click.option(
    "--max-mb",
    default=50.0,
    show_default=True,
    type=click.FloatRange(0.001, 1000),
    help="Files larger than this are left out.",
)
@click.option("--prune", is_flag=True, help="Take out documents from these folders whose files are gone.")
@click.pass_context
def add(context: click.Context, /, paths: tuple[Path, ...], **given: Any) -> None:
    """Add files and folders: text, Markdown, HTML, PDF, DOCX, CSV and source code.

    Files that did not change are not read again; a run that was cut off goes on by running it again. What cannot be
    read is named on stderr with the reason, the rest is added, and the exit status is 1.
    """
    from conclave.retrieval.ingest import BOUNDS, Ingest, Options  # noqa: PLC0415  commands load what they need
    from conclave.retrieval.worker import Workers  # noqa: PLC0415

    if given["public"] and given["tags"]:
        raise click.UsageError("--public and --acl exclude each other")
    if given["overlap"] * 2 > given["tokens"]:
        raise click.UsageError("--overlap is at most half of --tokens")
    options = Options(
        given["collection"],
        given["tags"] if given["tags"] or given["public"] else None,
        Trust[given["trust"].upper()] if given["trust"] else None,
        given["tokens"], given["overlap"], int(given["max_mb"] * 1e6), given["prune"],
    )  # fmt: skip
    workers = Workers(BOUNDS)
    batch = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    with _writing(context, make=True) as desk, _bar("files") as tick:
        try:
            run = Ingest(desk.library, desk.encode, workers, lambda: datetime.now(UTC)).add(
                paths, options, batch=batch, report=lambda step: tick(step.files)
            )
        finally:
            workers.close()
    for one in run.skipped:
        click.echo(f"left out: {one.path}: {one.reason}", err=True)
    click.echo(
        f"{run.new} new, {run.changed} changed, {run.relabelled} with other tags, {run.unchanged} unchanged, "
        f"{run.removed} removed, {len(run.skipped)} left out; {run.passages} passages written (batch {run.batch})"
    )
    if not (run.new or run.changed or run.relabelled or run.unchanged or run.skipped):
        click.echo("no file to add was found there; hidden files and folders are passed over", err=True)
    if run.unseen:
        click.echo(f"{run.unseen} hidden texts (comments, metadata, what no reader sees) were not added", err=True)
    if run.suppressed:
        click.echo(f"{run.suppressed} passages were not added: they name a subject that was forgotten", err=True)
    sys.exit(1 if run.skipped else 0)


@knowledge.command("list")
@click.option("--collection", callback=_name, help="Only this one.")
@click.option("--json", "as_json", is_flag=True, help="A JSON line for each document.")
@click.pass_context
def list_(context: click.Context, collection: str | None, *, as_json: bool) -> None:
    """List the documents, a line each."""
    import msgspec  # noqa: PLC0415  commands load what they need

    with _reading(context) as library:
        for one in library.documents(collection):
            click.echo(msgspec.json.encode(_row(one)).decode() if as_json else _line(one))


@knowledge.command()
@click.argument("text")
@click.option("--collection", "collections", multiple=True, help="Only in these; without it in all.")
@click.option(
    "--as",
    "tags",
    multiple=True,
    metavar="TAG",
    help="As a caller with these tags sees it; without it and --anyone, all.",
)
@click.option("--anyone", is_flag=True, help="As a caller without tags sees it.")
@click.option("--limit", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option("--way", default="hybrid", show_default=True, type=click.Choice(["hybrid", "meaning", "words"]))
@click.option("--json", "as_json", is_flag=True, help="A JSON line for each passage.")
@click.pass_context
def search(context: click.Context, /, text: str, *, as_json: bool, **given: Any) -> None:
    """Search the library, as a call would."""
    import msgspec  # noqa: PLC0415  commands load what they need

    from conclave.retrieval.api import Query, Rights  # noqa: PLC0415
    from conclave.retrieval.index import SnapshotError, Snapshots  # noqa: PLC0415
    from conclave.retrieval.search import Hybrid, check_encoder  # noqa: PLC0415

    if given["anyone"] and given["tags"]:
        raise click.UsageError("--anyone and --as exclude each other")
    tags = frozenset(given["tags"]) if given["tags"] or given["anyone"] else None
    rights = Rights(frozenset(given["collections"]) or None, tags)
    encode = encoder_of(context)
    with _reading(context) as library:
        check_encoder(library, encode)
        try:
            results = Hybrid(library, encode, Snapshots(library.folder), given["way"]).search(
                Query(text, rights, given["limit"])
            )
        except SnapshotError as error:
            raise click.ClickException(str(error)) from error
    for one in results.found:
        passage = one.passage
        if as_json:
            click.echo(msgspec.json.encode({**asdict(passage), "similarity": one.similarity, "words": one.words}))
            continue
        place = f", {passage.heading}" if passage.heading else ""
        page = f", page {passage.page}" if passage.page else ""
        click.echo(f"{passage.score:.4f}  cosine {one.similarity:.2f}  {passage.source}{place}{page}  [{passage.id}]")
        click.echo(f"    {' '.join(passage.text.split())[:SHOWN_CHARS]}")
    if not results.found:
        click.echo(f"nothing found among {results.among} passages", err=True)


@knowledge.command()
@click.argument("places", nargs=-1, required=True)
@click.pass_context
def remove(context: click.Context, places: tuple[str, ...]) -> None:
    """Take documents out: PLACES are sources as `list` shows them, files or folders. `forget` leaves no trace."""
    from conclave.retrieval.forget import Wanted, held  # noqa: PLC0415  commands load what they need

    with _writing(context) as desk:
        found = held(desk.library, Wanted(places=places))
        if found.documents:
            with desk.library.writing():
                desk.library.drop_documents(found.documents)
    click.echo(f"{len(found.documents)} documents removed")
    _none_of(found.missing)


@knowledge.command()
@click.argument("places", nargs=-1)
@click.option("--id", "ids", multiple=True, help="A passage, by its id.")
@click.option("--batch", help="All that one run of `add` brought and nothing changed since.")
@click.option("--collection", callback=_name, help="A whole collection.")
@click.option(
    "--subject",
    metavar="NAME",
    help="Every passage that names this person, address or number; it is not taken in again.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def forget(context: click.Context, /, places: tuple[str, ...], *, subject: str | None, yes: bool, **given: Any) -> None:
    """Take knowledge out so that nothing of it is left in index, words, metadata and files; print a receipt."""
    import msgspec  # noqa: PLC0415  commands load what they need

    from conclave.retrieval.forget import Forgetting, Wanted, held  # noqa: PLC0415
    from conclave.retrieval.subjects import Subject  # noqa: PLC0415

    try:
        named = None if subject is None else Subject.of(subject)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--subject") from error
    wanted = Wanted(places, given["ids"], given["batch"], given["collection"], named)
    if wanted == Wanted():
        raise click.UsageError("say what to forget: a place, --id, --batch, --collection or --subject")
    open_signer: OpenSigner | None = context.meta.get(SIGNER)
    try:
        signer = open_signer(context.meta[STATE_DIR].parent) if open_signer is not None else None
    except (OSError, ValueError) as error:
        raise click.ClickException(f"nothing was forgotten: the key for receipts cannot be read: {error}") from error
    with _writing(context) as desk:
        found = held(desk.library, wanted)
        count = len(desk.library.passages_of(found.documents)) + len(found.passages)
        if not count and not found.documents and named is None:
            _none_of(found.missing or tuple(_asked_for(wanted)))
        if not yes:
            click.confirm(f"Forget {count} passages ({len(found.documents)} whole documents)?", abort=True, err=True)
        forgetting = Forgetting(desk.library, desk.snapshots, desk.encode, lambda: datetime.now(UTC), signer)
        receipt = forgetting.forget(wanted, found)
    click.echo(msgspec.json.format(msgspec.json.encode(receipt), indent=1))
    if not receipt["log_emptied"]:
        click.echo("a reader holds the database's log: run `conclave knowledge verify --rebuild` later", err=True)
    _none_of(found.missing)
    sys.exit(1 if any(receipt["left"].values()) or not receipt["log_emptied"] else 0)


@knowledge.command("receipt")
@click.argument("file", required=False, type=click.File(encoding="utf-8"))
@click.option(
    "--public-key", type=click.File(), help="Trust the keys in this file (PEM), not the one in the state folder."
)
@click.option("--subject", metavar="NAME", help="Also say which receipts are for this name; needs the library.")
@click.pass_context
def receipt_command(
    context: click.Context, file: IO[str] | None, public_key: IO[str] | None, subject: str | None
) -> None:
    """Check receipts of `forget`, in FILE or all that are kept. Exit status 1 if one of them does not hold.

    With --public-key and a FILE it needs neither the library nor its gateway.
    """
    from conclave.retrieval.receipts import RECEIPTS, about, fault_of, is_for, read_receipts  # noqa: PLC0415

    make: MakeChecker | None = context.meta.get(CHECKER)
    if make is None:
        raise click.UsageError("nothing was handed in that knows signatures: use the command `conclave knowledge`")
    try:
        name = None if subject is None else _hashed_subject(context, subject)
        is_signed = make(context.meta[STATE_DIR].parent, None if public_key is None else public_key.read())
        text = (context.meta[STATE_DIR] / RECEIPTS).read_text("utf-8") if file is None else file.read()
        receipts = read_receipts(text)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    faults = [fault_of(one, is_signed) for one in receipts]
    for one, fault in zip(receipts, faults, strict=True):
        named = "" if name is None else ", for this name" if is_for(one, name) else ", not for this name"
        click.echo(f"{'holds' if fault is None else f'DOES NOT HOLD ({fault})'}: {about(one)}{named}")
    sys.exit(1 if any(faults) else 0)


def _hashed_subject(context: click.Context, subject: str) -> str:
    """How a receipt of this library names a subject."""
    from conclave.retrieval.forget import hashed  # noqa: PLC0415  commands load what they need
    from conclave.retrieval.subjects import Subject  # noqa: PLC0415

    with _reading(context) as library:
        return hashed(Subject.of(subject), library.fact("key") or b"")


@knowledge.command()
@click.option("--rebuild", is_flag=True, help="Make a new snapshot first, and finish a forgetting that was cut off.")
@click.option("--no-files", is_flag=True, help="Do not look at the files that were added.")
@click.pass_context
def verify(context: click.Context, *, rebuild: bool, no_files: bool) -> None:
    """Say whether the library is whole, and what changed in its files since. Exit status 1 if it is damaged."""
    from conclave.retrieval.forget import Forgetting  # noqa: PLC0415  commands load what they need
    from conclave.retrieval.index import CURRENT, SNAPSHOTS, Snapshots  # noqa: PLC0415
    from conclave.retrieval.verify import verify as verified  # noqa: PLC0415

    if rebuild:
        (context.meta[STATE_DIR] / SNAPSHOTS / CURRENT).unlink(missing_ok=True)
        with _writing(context) as desk:
            Forgetting(desk.library, desk.snapshots, desk.encode, lambda: datetime.now(UTC)).settle()
    with _reading(context) as library:
        checked = verified(library, Snapshots(library.folder), files=not no_files)
    for line in checked.behind:
        click.echo(f"behind: {line}", err=True)
    for line in checked.damage:
        click.echo(f"damaged: {line}", err=True)
    state = "damaged" if checked.damage else "whole"
    click.echo(f"{checked.documents} documents, {checked.passages} passages: the library is {state}")
    sys.exit(1 if checked.damage else 0)


@contextmanager
def _reading(context: click.Context) -> Iterator["Library"]:
    from conclave.retrieval.library import Library, LibraryError  # noqa: PLC0415  commands load what they need

    library = None
    try:
        library = Library.open(context.meta[STATE_DIR])
        yield library
    except LibraryError as error:
        raise click.ClickException(str(error)) from error
    finally:
        if library is not None:
            library.close()


@contextmanager
def _writing(context: click.Context, *, make: bool = False) -> Iterator[Desk]:
    """The library, for this process alone to change; at the end its snapshot is made anew."""
    from conclave.retrieval.forget import Forgetting  # noqa: PLC0415  commands load what they need
    from conclave.retrieval.index import SnapshotError, Snapshots  # noqa: PLC0415
    from conclave.retrieval.ingest import freshen  # noqa: PLC0415
    from conclave.retrieval.library import Library, LibraryError, pen  # noqa: PLC0415
    from conclave.retrieval.search import check_encoder  # noqa: PLC0415

    folder = context.meta[STATE_DIR]
    library = None
    try:
        if not make:
            Library.open(folder).close()  # no lock file where there is no library
        encode = encoder_of(context)
        with pen(folder, make=make):
            library = Library.open(folder, make=make)
            check_encoder(library, encode, write=True)
            desk = Desk(library, Snapshots(folder), encode)
            Forgetting(library, desk.snapshots, encode, lambda: datetime.now(UTC)).settle()
            yield desk
            freshen(library, desk.snapshots, encode)
    except KeyboardInterrupt:
        raise click.ClickException("stopped: what was written is whole; the same command goes on from here") from None
    except OSError as error:
        raise click.ClickException(f"{error.filename or folder}: {error.strerror}") from error
    except (LibraryError, SnapshotError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        if library is not None:
            library.close()


def encoder_of(context: click.Context) -> Encode:
    """The encoder that was handed in, loaded."""
    load: LoadEncoder | None = context.meta.get(ENCODER)
    if load is None:
        raise click.UsageError("no encoder was handed in: use the command `conclave knowledge`")
    try:
        return load()
    except (OSError, ValueError) as error:
        raise click.ClickException(f"the encoder cannot be used: {error}") from error


@contextmanager
def _bar(unit: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, if that is a terminal. What it yields takes the total, and counts one."""
    from tqdm import tqdm  # noqa: PLC0415  commands load what they need

    with tqdm(unit=f" {unit}", disable=None, file=sys.stderr, dynamic_ncols=True) as bar:

        def tick(total: int) -> None:
            bar.total = total
            bar.update()

        yield tick


def _asked_for(wanted: "Wanted") -> Iterator[str]:
    """What was asked for, in the words of the options."""
    yield from (f"passage {one}" for one in wanted.ids)
    if wanted.batch is not None:
        yield f"batch {wanted.batch}"
    if wanted.collection is not None:
        yield f"collection {wanted.collection}"


def _none_of(missing: tuple[str, ...]) -> None:
    if missing:
        raise click.ClickException(f"not in the library: {', '.join(missing)}")


def _row(one: "Document") -> dict[str, Any]:
    return {**asdict(one), "trust": one.trust.name.lower()}


def _line(one: "Document") -> str:
    tags = f"  [{', '.join(one.acl)}]" if one.acl else ""
    return f"{one.collection}  {one.source}  {one.passages} passages  {one.trust.name.lower()}  {one.batch}{tags}"
