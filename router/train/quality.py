"""Fits the quality head: what topic, words and form say about each expert's gain over the others.

The parts are added up with shares chosen on a quarter of the rows that the parts had not seen; then they are fitted
again to all rows. `apart` is for a head whose questions will be of subjects that the data lack: it chooses on whole
topics that the parts had not seen and keeps the words alone: a new subject would be taken for the nearest known one,
and trees learn the shape of known subjects. Everything random is
drawn from `SEED`; the same rows give the same head.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.optimize import nnls
from scipy.sparse import csr_matrix

from conclave.router.cues import cues
from conclave.router.encoder import StaticEncoder, excerpt
from conclave.router.features import code_space, codes, evidence, surface
from conclave.router.outcomes import Graded, experts_of
from conclave.router.quality import Tensors, posterior
from conclave.router.train.forest import Forest, bare, boost
from conclave.router.train.linear import Naming, ridge, topics

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED: Final = 20261122
HELD_OUT: Final = 4  # one row in so many is kept for choosing the shares
PARTS: Final = 2  # topics of training rows are recognised by models of the other part
RARE: Final = 3  # a word seen in fewer rows is not read
TOPIC_ROWS: Final = 20
TOPICS: Final = 64
TABLE_HOLD: Final = 15.0  # rows of no gain that a topic's gain is averaged with
PENALTIES: Final = (10.0, 30.0)  # of the words' weights
USUAL: Final = (0.3, 0.5, 0.5)  # shares that the chosen ones are drawn to: least squares of three like terms is jumpy
USUAL_HOLD: Final = 0.5  # how strongly, against what the rows say on average


@dataclass(frozen=True, slots=True)
class Material:
    """All that is read of some rows: `words` [rows, codes] by evidence, `dense` [rows, vector + surface], `form` [rows,
    cues + surface + categories], `topic` [rows] a number or -1, `scores` [rows, experts] with NaN where not asked."""

    experts: tuple[str, ...]
    categories: tuple[str, ...]
    topics: tuple[str, ...]
    words: csr_matrix
    dense: "NDArray[np.float32]"
    form: "NDArray[np.float32]"
    topic: "NDArray[np.int64]"
    scores: "NDArray[np.float64]"

    def rows(self, numbers: "NDArray[np.int64]") -> "Material":
        """Some of the rows."""
        return Material(
            self.experts,
            self.categories,
            self.topics,
            self.words[numbers],
            self.dense[numbers],
            self.form[numbers],
            self.topic[numbers],
            self.scores[numbers],
        )


def material(
    rows: Sequence[Graded],
    probabilities: Sequence[Mapping[str, float]],
    *,
    encoder: StaticEncoder,
    experts: Sequence[str] | None = None,
) -> Material:
    """Read the rows; `probabilities` are the classifier's."""
    names = tuple(experts or experts_of(rows))
    categories = tuple(sorted({name for share in probabilities for name in share}))
    labels = [topic_of(row) for row in rows]
    held = Counter(label for label in labels if label is not None)
    known = tuple(sorted(name for name, count in held.most_common(TOPICS) if count >= TOPIC_ROWS))
    known = known if len(known) > 1 else ()
    place = {name: number for number, name in enumerate(known)}
    columns, values, starts, form, dense = [], [], [0], [], []
    for row, share in zip(rows, probabilities, strict=True):
        text = excerpt(row.prompt)
        ids = encoder.tokens.ids(text)
        tokens = np.array(ids, dtype=np.int64)
        found = codes(tokens, encoder.vocabulary)
        marks = surface(text, ids)
        columns.append(found)
        values.append(np.full(len(found), evidence(len(found)), dtype=np.float32))
        starts.append(starts[-1] + len(found))
        dense.append(np.concatenate((encoder.pool(tokens), np.array(marks, dtype=np.float32))))
        form.append([*cues(text), *marks, *(share.get(name, 0.0) for name in categories)])
    shape = (len(rows), code_space(encoder.vocabulary))
    return Material(
        experts=names,
        categories=categories,
        topics=known,
        words=csr_matrix((np.concatenate(values), np.concatenate(columns), starts), shape),
        dense=np.stack(dense),
        form=np.array(form, dtype=np.float32),
        topic=np.array([-1 if label is None else place.get(label, -1) for label in labels]),
        scores=np.array([[row.scores.get(name, np.nan) for name in names] for row in rows]),
    )


def topic_of(row: Graded) -> str | None:
    """The finest name that the row has for what it is about."""
    return row.subset or row.category or row.dataset


@dataclass(frozen=True, slots=True)
class Targets:
    """`gain` [rows, experts]: how much better than the others an expert did; `level` [rows]: how well all did."""

    mean: "NDArray[np.float32]"
    gain: "NDArray[np.float32]"
    level: "NDArray[np.float32]"

    @property
    def both(self) -> "NDArray[np.float32]":
        """[rows, experts + 1]"""
        return np.concatenate((self.gain, self.level[:, None]), axis=1)


def targets(scores: "NDArray[np.float64]") -> Targets:
    """Of rows that may lack experts: who was not asked gained nothing."""
    asked = ~np.isnan(scores)
    count = np.maximum(asked.sum(axis=0), 1)
    mean = np.where(asked, scores, 0).sum(axis=0) / count
    off = np.where(asked, scores - mean, 0.0)
    level = off.sum(axis=1) / np.maximum(asked.sum(axis=1), 1)
    gain = np.where(asked, off - level[:, None], 0.0)
    return Targets(mean.astype(np.float32), gain.astype(np.float32), level.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Parts:
    """The models before their shares are known; `words` has weights for each of PENALTIES."""

    seen: "NDArray[np.int64]"
    words: tuple["NDArray[np.float32]", ...]
    naming: Naming
    table: "NDArray[np.float32]"
    forest: Forest
    mean: "NDArray[np.float32]"

    def terms(self, held: Material) -> tuple["NDArray[np.float32]", list["NDArray[np.float32]"], "NDArray[np.float32]"]:
        """What table, words (for each penalty) and trees say of rows: [rows, experts + 1] twice, [rows, experts]."""
        mine = held.words[:, self.seen]
        by_topic, form = formed(mine, held.dense, self.naming, self.table, held.form)
        return by_topic, [np.asarray(mine @ weights) for weights in self.words], self.forest.predict(form)


def formed(
    words: csr_matrix,
    dense: "NDArray[np.float32]",
    naming: Naming,
    table: "NDArray[np.float32]",
    form: "NDArray[np.float32]",
) -> tuple["NDArray[np.float32]", "NDArray[np.float32]"]:
    """The table's word on rows, and what the trees look at."""
    shares = posterior(naming.scores(words, dense))
    by_topic = shares @ table
    surest = shares.max(axis=1, initial=0.0, keepdims=True)
    return by_topic, np.concatenate((by_topic, surest, form), axis=1).astype(np.float32)


def parts(held: Material, *, apart: bool = False, penalties: Sequence[float] = PENALTIES) -> Parts:
    """Fit every model to all rows of `held`; the trees see each row's topic as models of other rows recognise it.

    `apart`: no trees.
    """
    wanted = targets(held.scores)
    seen = np.flatnonzero(np.bincount(held.words.indices, minlength=held.words.shape[1]) >= RARE)
    words = held.words[:, seen].tocsr()
    count = len(held.topics)
    table = topic_table(held.topic, wanted.both, count)
    naming = topics(words, held.dense, held.topic, count)
    draw = np.random.default_rng(SEED)
    part = draw.permutation(len(held.topic)) % PARTS
    form = np.zeros((len(part), table.shape[1] + 1 + held.form.shape[1]), dtype=np.float32)
    for number in range(PARTS):
        mine = np.flatnonzero(part == number)
        others = np.where(part == number, -1, held.topic)
        form[mine] = formed(
            words[mine], held.dense[mine], topics(words, held.dense, others, count), table, held.form[mine]
        )[1]
    repeated = np.tile(wanted.both, (1, len(penalties)))
    each = np.repeat(np.array(penalties, dtype=np.float32), wanted.both.shape[1])
    weights = ridge(words, repeated, each)
    return Parts(
        seen=seen,
        words=tuple(np.split(weights, len(penalties), axis=1)),
        naming=naming,
        table=table,
        forest=bare(wanted.gain.shape[1]) if apart else boost(form, wanted.gain, seed=SEED),
        mean=wanted.mean,
    )


def topic_table(topic: "NDArray[np.int64]", wanted: "NDArray[np.float32]", count: int) -> "NDArray[np.float32]":
    """Gains and level of each topic, [topics, experts + 1], drawn to 0 where rows are few."""
    known = topic >= 0
    member = np.zeros((len(topic), count), dtype=np.float32)
    member[known, topic[known]] = 1
    found: NDArray[np.float32] = (member.T @ wanted) / (member.sum(axis=0)[:, None] + TABLE_HOLD)
    return found


@dataclass(frozen=True, slots=True)
class Shares:
    """Of table, words and trees in the gain; of table and words in the level; which penalty serves the words."""

    mix: tuple[float, float, float]
    ease: tuple[float, float]
    penalty: int


def shares(fitted: Parts, unseen: Material) -> Shares:
    """Least squares without negative shares, on rows that the parts have not seen."""
    wanted = targets(unseen.scores)
    asked = ~np.isnan(unseen.scores)
    by_topic, words, trees = fitted.terms(unseen)
    experts = len(fitted.mean)

    def fit(number: int) -> tuple["NDArray[np.float64]", float]:
        terms = (by_topic[:, :experts], words[number][:, :experts], trees)
        return drawn(np.stack([term[asked] for term in terms], axis=1).astype(float), wanted.gain[asked])

    number = min(range(len(words)), key=lambda one: fit(one)[1])
    level = nnls(np.stack((by_topic[:, experts], words[number][:, experts]), axis=1).astype(float), wanted.level)
    table, lexical, forest = (float(share) for share in fit(number)[0])
    return Shares((table, lexical, forest), (float(level[0][0]), float(level[0][1])), number)


def drawn(terms: "NDArray[np.float64]", wanted: "NDArray[np.float32]") -> tuple["NDArray[np.float64]", float]:
    """Shares of the terms [rows, terms] in what is wanted, not negative, drawn to USUAL; and what stays unexplained."""
    hold = np.sqrt(USUAL_HOLD * np.square(terms).sum(axis=0))
    found, _ = nnls(np.concatenate((terms, np.diag(hold))), np.concatenate((wanted.astype(float), hold * USUAL)))
    return found, float(np.square(wanted - terms @ found).sum())


@dataclass(frozen=True, slots=True)
class Fitted:
    """A head, its shares, and what it would have said of rows that it had not seen: `expected` of rows `unseen`."""

    tensors: Tensors
    shares: Shares
    unseen: "NDArray[np.int64]"
    expected: "NDArray[np.float32]"


def fit(held: Material, *, apart: bool = False) -> Fitted:
    """The head of all rows."""
    draw = np.random.default_rng(SEED + 1)
    present = np.unique(held.topic[held.topic >= 0])
    if apart and len(present) > 1:
        out = np.isin(held.topic, draw.permutation(present)[: -(-len(present) // HELD_OUT)])
    else:
        out = draw.permutation(len(held.topic)) % HELD_OUT == 0
    if apart:
        held = replace(held, topics=(), topic=np.full_like(held.topic, -1))
    unseen = np.flatnonzero(out)
    some = parts(held.rows(np.flatnonzero(~out)), apart=apart)
    chosen = shares(some, held.rows(unseen))
    return Fitted(
        tensors=tensors(parts(held, apart=apart, penalties=(PENALTIES[chosen.penalty],)), chosen, words=0),
        shares=chosen,
        unseen=unseen,
        expected=predict(tensors(some, chosen, words=chosen.penalty), held.rows(unseen)),
    )


def tensors(fitted: Parts, chosen: Shares, *, words: int) -> Tensors:
    """As the head reads them; `words` says which penalty's weights."""
    naming = fitted.naming
    return Tensors(
        seen=fitted.seen,
        lexical=np.concatenate((fitted.words[words], naming.words), axis=1).astype(np.float16).astype(np.float32),
        bias=np.concatenate((np.zeros(len(fitted.mean) + 1, dtype=np.float32), naming.bias)),
        dense=naming.dense,
        table=fitted.table.astype(np.float32),
        feature=fitted.forest.feature,
        cut=fitted.forest.cut,
        leaf=fitted.forest.leaf.astype(np.float32),
        mix=np.array(chosen.mix, dtype=np.float32),
        ease=np.array(chosen.ease, dtype=np.float32),
        mean=fitted.mean,
    )


def predict(fitted: Tensors, held: Material) -> "NDArray[np.float32]":
    """The expected scores of many rows, [rows, experts]: what the head says one by one, but for clipping."""
    experts = len(fitted.mean)
    words = np.asarray(held.words[:, fitted.seen] @ fitted.lexical) + fitted.bias
    naming = posterior(words[:, experts + 1 :] + held.dense @ fitted.dense)
    by_topic = naming @ fitted.table
    features = np.concatenate((by_topic, naming.max(axis=1, initial=0.0, keepdims=True), held.form), axis=1)
    trees = Forest(fitted.feature, fitted.cut, fitted.leaf).predict(features.astype(np.float32))
    gain = fitted.mix[0] * by_topic[:, :experts] + fitted.mix[1] * words[:, :experts] + fitted.mix[2] * trees
    level = fitted.ease[0] * by_topic[:, experts] + fitted.ease[1] * words[:, experts]
    found: NDArray[np.float32] = fitted.mean + gain + level[:, None]
    return found
