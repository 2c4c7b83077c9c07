"""Three gauges of what goes wrong in a mixture with shared and own experts (HoME, arXiv 2408.05430, section 1).

Collapse: experts whose output is almost always zero, or of another size than their neighbours'. Degradation: a shared
expert that one task has taken for itself. Underfitting: a task with few labels that does not use its own experts.
Pure functions of numpy arrays; they say numbers, and `Gauges.alarms` which of them are bad.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

AXES: Final = 3  # rows, experts, width; rows, tasks, experts
NEGLIGIBLE: Final = 0.01  # of the layer's root mean square: as good as zero, so that Swish is judged like ReLU
COLLAPSED: Final = 0.9  # the paper's ReLU experts: some above this zero rate
OCCUPIED: Final = 0.9  # of a shared expert's mass, held by one task
NARROW: Final = 0.3  # entropy in nats over the tasks that share an expert
UNUSED: Final = 0.1  # mean gate mass on a task's own experts


@dataclass(frozen=True, slots=True)
class Gauges:
    """One reading; `alarms` names the anomalies that it shows."""

    zero_rate: tuple[float, ...]  # of each expert of each layer
    mean_ratio: float  # the largest expert's mean output over the smallest's
    spread_ratio: float  # the same of the standard deviations
    top_share: float  # the largest mean gate mass that one task gives to one expert
    occupancy: tuple[float, ...]  # of each shared expert: the largest share of its mass that one task holds
    entropy: tuple[float, ...]  # of each shared expert, over the tasks
    own_mass: tuple[float, ...]  # of each task: mean gate mass on its own experts

    def alarms(self, sparse: Sequence[int]) -> tuple[str, ...]:
        """`collapse`, `degradation`, `underfitting`; the last for the tasks with few labels."""
        found = []
        if max(self.zero_rate) > COLLAPSED:
            found.append("collapse")
        if max(self.occupancy) > OCCUPIED or min(self.entropy) < NARROW:
            found.append("degradation")
        if any(self.own_mass[task] < UNUSED for task in sparse):
            found.append("underfitting")
        return tuple(found)


def read(layers: Sequence["NDArray[np.float32]"], gates: "NDArray[np.float32]", *, own: int, shared: int) -> Gauges:
    """From the outputs of each layer, [rows, experts, width], and the gates over the last, [rows, tasks, experts].

    In the last layer the tasks' own experts stand first, those shared by all last. Collapse is read in every layer.

    Raises ValueError for arrays that do not fit each other, are empty, or hold what is no number.
    """
    outputs = layers[-1]
    if {gates.ndim, *(layer.ndim for layer in layers)} != {AXES}:
        raise ValueError("outputs and gates have three axes each")
    if len(outputs) != len(gates) or gates.shape[2] != outputs.shape[1]:
        raise ValueError(f"outputs {outputs.shape} and gates {gates.shape} are not of the same rows and experts")
    tasks, experts = gates.shape[1:]
    if not outputs.size or min(own, shared) < 1 or tasks * own + shared > experts:
        raise ValueError(f"{experts} experts are not {own} for each of {tasks} tasks and {shared} shared ones")
    if not all(np.isfinite(array).all() for array in (*layers, gates)):
        raise ValueError("outputs and gates hold something that is no number")
    shares = occupancy(gates[:, :, experts - shared :])
    return Gauges(
        zero_rate=tuple(np.concatenate([zero_rate(layer) for layer in layers]).tolist()),
        mean_ratio=max(_ratio(np.abs(layer).mean(axis=(0, 2))) for layer in layers),
        spread_ratio=max(_ratio(layer.std(axis=(0, 2))) for layer in layers),
        top_share=float(gates.mean(axis=0).max()),
        occupancy=tuple(shares.max(axis=1).tolist()),
        entropy=tuple(entropy(shares).tolist()),
        own_mass=tuple(own_mass(gates, own=own).tolist()),
    )


def zero_rate(outputs: "NDArray[np.float32]") -> "NDArray[np.float64]":
    """Share of each expert's activations that are as good as zero, [experts]."""
    size = float(np.sqrt(np.square(outputs, dtype=np.float64).mean()))
    rate: NDArray[np.float64] = (np.abs(outputs) <= NEGLIGIBLE * size).mean(axis=(0, 2))
    return rate


def occupancy(gates: "NDArray[np.float32]") -> "NDArray[np.float64]":
    """How the tasks share each of the experts in `gates` [rows, tasks, experts]: [experts, tasks], rows sum to 1.

    An expert that nobody uses belongs to no task more than to another.
    """
    mass = gates.mean(axis=0, dtype=np.float64).T  # [experts, tasks]
    total = mass.sum(axis=1, keepdims=True)
    even = np.full_like(mass, 1 / mass.shape[1])
    shares: NDArray[np.float64] = np.divide(mass, total, out=even, where=total > 0)
    return shares


def entropy(shares: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Of each row, in nats."""
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    found: NDArray[np.float64] = -(shares * logs).sum(axis=1)
    return found


def own_mass(gates: "NDArray[np.float32]", *, own: int) -> "NDArray[np.float64]":
    """Mean gate mass of each task on its own experts, [tasks]."""
    mass = gates.mean(axis=0, dtype=np.float64)  # [tasks, experts]
    return np.array([mass[task, task * own : (task + 1) * own].sum() for task in range(len(mass))])


def gradient_ratio(norms: Sequence[float], sparse: Sequence[int]) -> float:
    """Gradient norm on the own experts of the tasks with few labels, over that of the others; raises ValueError."""
    dense = [norm for task, norm in enumerate(norms) if task not in sparse]
    if not dense or not sparse:
        raise ValueError("a ratio needs tasks with few labels and tasks with many")
    top = float(np.mean([norms[task] for task in sparse]))
    bottom = float(np.mean(dense))
    return top / bottom if bottom > 0 else float("inf" if top > 0 else "nan")


def _ratio(sizes: "NDArray[np.float32]") -> float:
    smallest = float(sizes.min())
    return float(sizes.max()) / smallest if smallest > 0 else float("inf")
