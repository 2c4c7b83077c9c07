"""Which outcome data the benchmark uses, as pools of experts that all answered the same questions, and how to split it.

Any file of the outcome schema is a pool of its own. Of one file we know that its 29 models are not one pool: it gives a
pool of small models and one of the strongest. Costs are list prices or sizes, from memory and for ratios only: the
files hold none.
"""

import gzip
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from conclave.router.outcomes import Graded, read_outcomes

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED: Final = 7
FOLDS: Final = 5
ASKED_SHARE: Final = 0.8  # an expert that was asked less often is no part of a pool
FEWEST_ROWS: Final = 100
SPLITS: Final = ("5-fold", "leave-subjects-out", "leave-dataset-out")
KNOWLEDGE: Final = "retrieval_gate.jsonl.gz"

_SMALL: Final = (
    "Meta-Llama-3_1-8B-Instruct", "mathstral-7B", "Phi-3-mini-4k-instruct", "Meta-Llama-3_1-8B",
    "Mistral-7B-Instruct-v0.2", "Yi-6b-Chat", "gemma-7b",
)  # fmt: skip
_SMALL_SIZES: Final = (8.0, 7.0, 3.8, 8.0, 7.2, 6.1, 8.5)
_FRONTIER: Final = {  # USD per million tokens written
    "gemini-1.5-pro-002": 5.0,
    "gemini-1.5-flash-002": 0.3,
    "DeepSeek-Coder-V2": 0.28,
    "Meta-Llama-3_1-70B-Instruct": 0.88,
}
_PAIR: Final = {"mixtral-8x7b-instruct-v0.1": 0.24, "gpt-4-1106-preview": 24.7}  # USD/M, as RouteLLM counts them
_NINE: Final = {  # billion parameters
    "mistral-7b-instruct-v0.3": 7.2,
    "llama-3.1-8b-instruct": 8.0,
    "gemma-2-9b-it": 9.2,
    "llama3-chatqa-1.5-8b": 8.0,
    "qwen2.5-7b-instruct": 7.6,
    "llama-3.1-nemotron-51b-instruct": 51.0,
    "codegemma-7b": 8.5,
    "llama3-chatqa-1.5-70b": 70.6,
    "llama-3.3-nemotron-super-49b-v1": 49.9,
}


@dataclass(frozen=True, slots=True)
class Pool:
    """Experts, the rows that all of them answered, and what a call of each costs (in one unit, for ratios)."""

    name: str
    experts: tuple[str, ...]
    rows: Sequence[Graded]
    costs: Mapping[str, float] = field(default_factory=dict)

    def scores(self) -> "NDArray[np.float64]":
        """[rows, experts]"""
        return np.array([[row.scores[name] for name in self.experts] for row in self.rows])

    def at_most(self, rows: int) -> "Pool":
        """A seeded sample of so many rows; 0: all."""
        if not 0 < rows < len(self.rows):
            return self
        chosen = np.sort(np.random.default_rng(SEED).permutation(len(self.rows))[:rows])
        return replace(self, rows=[self.rows[number] for number in chosen])


_KNOWN: Final[Mapping[str, Mapping[str, Mapping[str, float]]]] = {
    "outcomes_mmlu_pro": {
        "mmlu_pro_small": dict(zip(_SMALL, _SMALL_SIZES, strict=True)),
        "mmlu_pro_frontier": _FRONTIER,
    },
    "outcomes_routellm_mmlu": {"routellm_mmlu": _PAIR},
    "outcomes_llmrouter": {"llmrouter": _NINE},
}


class _Known(msgspec.Struct):
    id: str
    question: str
    per_model: dict[str, float] | None = None


def folder_pools(data: Path) -> Iterator[Pool]:
    """The pools of a data folder; raises FileNotFoundError if it holds none of the files."""
    files = sorted(data.glob("outcomes_*.jsonl.gz"))
    if not files:
        raise FileNotFoundError(f"{data} holds no outcomes_*.jsonl.gz")
    for file in files:
        yield from file_pools(file)
    if (data / KNOWLEDGE).exists():
        yield knowledge(data / KNOWLEDGE)


def file_pools(file: Path) -> Iterator[Pool]:
    """The pools of one file of the outcome schema; raises outcomes.BadRows, and ValueError for too few rows."""
    rows = read_outcomes([file])
    name = file.name.partition(".")[0]
    known = {
        pool: costs for pool, costs in _KNOWN.get(name, {}).items() if all(expert in rows[0].scores for expert in costs)
    }
    if known:
        for pool, costs in known.items():
            yield complete(Pool(pool, tuple(costs), rows, costs))
    else:
        yield complete(Pool(name, _often_asked(rows), rows, _costs(rows)))


def complete(pool: Pool) -> Pool:
    """The pool with only those rows on which every expert was asked."""
    rows = [row for row in pool.rows if all(name in row.scores for name in pool.experts)]
    if len(rows) < FEWEST_ROWS or len(pool.experts) < 2:  # noqa: PLR2004  a choice needs two
        raise ValueError(
            f"{pool.name}: {len(rows)} rows on which all of {len(pool.experts)} experts were asked; a benchmark needs "
            f"{FEWEST_ROWS} rows of at least 2"
        )
    return replace(pool, rows=rows)


def knowledge(file: Path) -> Pool:
    """Which of three models knows the answer to a question of TriviaQA."""
    decode = msgspec.json.Decoder(_Known).decode
    with gzip.open(file, "rb") as lines:
        found = [row for row in map(decode, lines) if row.per_model and len(row.per_model) == 3]  # noqa: PLR2004
    rows = [Graded(row.question, row.per_model or {}, name=row.id, dataset="triviaqa") for row in found]
    return complete(Pool("triviaqa_knowledge", tuple(sorted(rows[0].scores)), rows))


def _often_asked(rows: Sequence[Graded]) -> tuple[str, ...]:
    names = sorted({name for row in rows for name in row.scores})
    return tuple(name for name in names if sum(name in row.scores for row in rows) >= ASKED_SHARE * len(rows))


def _costs(rows: Sequence[Graded]) -> dict[str, float]:
    """The mean cost of each expert, if every expert has one."""
    held: dict[str, list[float]] = {}
    for row in rows:
        for name, cost in row.cost.items():
            held.setdefault(name, []).append(cost)
    names = {name for row in rows for name in row.scores}
    return {name: float(np.mean(costs)) for name, costs in held.items()} if names <= held.keys() else {}


def folds(rows: Sequence[Graded], split: str) -> "NDArray[np.int64] | None":
    """Each row's fold; whole subjects or data sets together where the split says so; None if there is but one."""
    draw = np.random.default_rng(SEED)
    if split == "5-fold":
        return draw.permutation(len(rows)) % FOLDS
    names = [row.dataset if split == "leave-dataset-out" else row.subset or row.category for row in rows]
    distinct = sorted({name for name in names if name is not None})
    if len(distinct) < 2 or None in names:  # noqa: PLR2004  one cannot be left out
        return None
    order = draw.permutation(len(distinct)) % min(FOLDS, len(distinct))
    fold = dict(zip(distinct, order.tolist(), strict=True))
    return np.array([fold[str(name)] for name in names])
