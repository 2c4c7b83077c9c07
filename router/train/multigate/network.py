"""The networks: HoME's hierarchy of normalised experts, and the plain ReLU mixture that it is compared with.

Both say one row of logits a task, and both can say what went on inside (`Pass`), which is what the gauges read. They
know nothing of texts: `inputs` are numbers, a task is a number of classes and the group that it belongs to.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

GATE_RANK = 8  # of the feature gates


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network is made of; tasks are numbered in the order of `classes`."""

    inputs: int
    classes: tuple[int, ...]  # each task's number of classes
    groups: tuple[tuple[int, ...], ...]  # tasks that may share a group's experts; each task is in one group
    width: int = 32  # of every expert
    shared: int = 2  # experts for all, in each layer, and a group's experts in the first
    own: int = 1  # experts that one task alone uses
    drop: float = 0.0  # share of the inputs that are hidden from the network while it learns
    linear: bool = False  # a linear head a task beside the towers, learnt with them: ours, not HoME's

    def __post_init__(self) -> None:
        if sorted(task for group in self.groups for task in group) != list(range(len(self.classes))):
            raise ValueError(f"each of the {len(self.classes)} tasks belongs to one group, not as in {self.groups}")
        if min(self.inputs, self.width, self.shared, self.own, *self.classes) < 1 or not 0 <= self.drop < 1:
            raise ValueError(f"a network has inputs, a width, experts and classes, and drops less than all: {self}")


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over a batch, with what the gauges read."""

    logits: tuple[torch.Tensor, ...]  # of each task, [rows, classes]
    gates: torch.Tensor  # what each expert of the last layer counts for a task, [rows, tasks, experts], summing to 1
    layers: tuple[torch.Tensor, ...]  # outputs of every layer's experts, [rows, experts, width]


class FeatureGate(nn.Module):  # type: ignore[misc]  # torch is not typed here
    """Each expert's own view of its input: `v * 2 sigmoid(v B A)`, the value times the gate (HoME).

    A starts at zero, so that the gate is one and the layer passes its input on. The gate alone is not what an expert
    should see: a public re-implementation hands that on.
    """

    def __init__(self, experts: int, width: int) -> None:
        super().__init__()
        rank = min(GATE_RANK, width)
        self.down = nn.Parameter(torch.randn(experts, width, rank) * width**-0.5)
        self.up = nn.Parameter(torch.zeros(experts, rank, width))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """[experts, rows, width] -> the same shape; 2 sigmoid(2 t) is written 1 + tanh(t), which costs half."""
        turned = torch.tanh(torch.bmm(torch.bmm(values, self.down) / 2, self.up))
        return torch.addcmul(values, values, turned)


class HomeExperts(nn.Module):  # type: ignore[misc]  # as above
    """`Swish(norm(W gate(x)))`, all experts of a layer at once; the norm is over the batch."""

    def __init__(self, experts: int, inputs: int, width: int) -> None:
        super().__init__()
        self.gate = FeatureGate(experts, inputs)
        self.weight = nn.Parameter(torch.randn(experts, inputs, width) * inputs**-0.5)
        self.norm = nn.BatchNorm1d(experts * width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """[experts, rows, inputs] -> [rows, experts, width]."""
        mixed = torch.bmm(self.gate(values), self.weight).transpose(0, 1)
        return nn.functional.silu(self.norm(mixed.flatten(1)).view(mixed.shape))


class Home(nn.Module):  # type: ignore[misc]  # as above
    """Meta layer: experts of each group and shared ones. Task layer: a task's own, its group's, and shared ones."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        groups, tasks = len(shape.groups), len(shape.classes)
        self.register_buffer("meta_mask", _meta_mask(shape), persistent=False)
        self.register_buffer("task_mask", _task_mask(shape), persistent=False)
        self.register_buffer("task_group", _group_of(shape), persistent=False)
        self.register_buffer("reads", _reads(shape), persistent=False)
        self.meta = HomeExperts((groups + 1) * shape.shared, shape.inputs, shape.width)
        self.meta_gate = nn.Linear(shape.inputs, self.meta_mask.numel())
        self.experts = HomeExperts(self.task_mask.shape[1], shape.width, shape.width)
        self.task_gate = _PerTask(tasks, 2 * shape.width, self.task_mask.shape[1])
        self.self_gate = _PerTask(tasks, 2 * shape.width, shape.own)
        self.towers = _Towers(shape)
        self.dropout = nn.Dropout(shape.drop)

    def forward(self, inputs: torch.Tensor) -> Pass:
        """[rows, inputs] -> logits and gauges' material."""
        inputs = self.dropout(inputs)
        rows, shape = len(inputs), self.shape
        meta = self.meta(inputs.expand(len(self.meta_mask[0]), -1, -1))  # [rows, meta experts, width]
        scores = self.meta_gate(inputs).view(rows, *self.meta_mask.shape)  # [rows, groups + 1, meta experts]
        views = _choose(scores, self.meta_mask) @ meta  # [rows, groups + 1, width], the last one shared
        everyone = views[:, -1:].expand(-1, len(shape.classes), -1)
        seen = torch.cat((views[:, self.task_group], everyone), dim=2)  # [rows, tasks, 2 width]
        outputs = self.experts(views[:, self.reads].transpose(0, 1))  # [rows, experts, width]
        gates = _choose(self.task_gate(seen), self.task_mask)  # [rows, tasks, experts]
        own = outputs[:, : len(shape.classes) * shape.own].unflatten(1, (-1, shape.own))  # [rows, tasks, own, width]
        direct = self.self_gate(seen)  # [rows, tasks, own]
        direct = torch.sigmoid(direct) if shape.own == 1 else torch.softmax(direct, dim=2)
        mixed = gates @ outputs + (direct[..., None] * own).sum(2)  # [rows, tasks, width]
        return Pass(self.towers(mixed, inputs), self._weights(gates, direct), (meta, outputs))

    def _weights(self, gates: torch.Tensor, direct: torch.Tensor) -> torch.Tensor:
        """What each expert counts in a task's mixture, both ways in, summing to 1: [rows, tasks, experts]."""
        spread = torch.zeros_like(gates)
        own = self.task_mask[:, : len(self.shape.classes) * self.shape.own]
        spread[:, :, : own.shape[1]][:, own] = direct.flatten(1)
        return (gates + spread) / (1 + direct.sum(2, keepdim=True))


class Plain(nn.Module):  # type: ignore[misc]  # as above
    """The usual mixture: ReLU experts without norm, some shared and some a task's own, one softmax gate a task.

    MMoE (Ma et al. 2018) with own experts as in CGC (Tang et al. 2020): without them underfitting has no meaning.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        tasks = len(shape.classes)
        own = torch.eye(tasks, dtype=torch.bool).repeat_interleave(shape.own, dim=1)
        mask = torch.cat((own, torch.ones(tasks, shape.shared, dtype=torch.bool)), dim=1)  # [tasks, experts]
        self.register_buffer("task_mask", mask, persistent=False)
        experts = mask.shape[1]
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(experts, before, after) * (2 / before) ** 0.5)
            for before, after in pairwise((shape.inputs, shape.width, shape.width))
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(experts, shape.width)) for _ in self.weights)
        self.task_gate = nn.Linear(shape.inputs, mask.numel())
        self.towers = _Towers(shape)
        self.dropout = nn.Dropout(shape.drop)

    def forward(self, inputs: torch.Tensor) -> Pass:
        """[rows, inputs] -> logits and gauges' material."""
        inputs = self.dropout(inputs)
        outputs = inputs.expand(self.task_mask.shape[1], -1, -1)
        layers = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            outputs = torch.relu(torch.baddbmm(bias[:, None], outputs, weight))  # [experts, rows, width]
            layers.append(outputs.transpose(0, 1))
        outputs = layers[-1]  # [rows, experts, width]
        gates = _choose(self.task_gate(inputs).view(len(inputs), *self.task_mask.shape), self.task_mask)
        mixed = gates @ outputs  # [rows, tasks, width]
        return Pass(self.towers(mixed, inputs), gates, tuple(layers))


class _Towers(nn.Module):  # type: ignore[misc]  # as above
    """From each task's mixture to its logits, with the linear heads beside them where the shape has these."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.deep = nn.ModuleList(nn.Linear(shape.width, classes) for classes in shape.classes)
        heads = [nn.Linear(shape.inputs, classes, bias=False) for classes in shape.classes if shape.linear]
        for head in heads:
            nn.init.zeros_(head.weight)
        self.flat = nn.ModuleList(heads)

    def forward(self, mixed: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[rows, tasks, width] and [rows, inputs] -> [rows, classes] for each task."""
        logits = [tower(mixed[:, task]) for task, tower in enumerate(self.deep)]
        if self.flat:
            logits = [deep + flat(inputs) for deep, flat in zip(logits, self.flat, strict=True)]
        return tuple(logits)


class _PerTask(nn.Module):  # type: ignore[misc]  # as above
    """A linear map of its own for each task, that starts at zero: every choice is open."""

    def __init__(self, tasks: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(tasks, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(tasks, outputs))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """[rows, tasks, inputs] -> [rows, tasks, outputs]."""
        return torch.einsum("bti,tio->bto", values, self.weight) + self.bias


def _choose(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Softmax over the experts that the mask allows."""
    return torch.softmax(scores.masked_fill(~mask, float("-inf")), dim=-1)


def _meta_mask(shape: Shape) -> torch.Tensor:
    """[groups + 1, experts]: a group sees its own experts and the shared ones; the shared view sees all."""
    groups = len(shape.groups)
    mask = torch.eye(groups + 1, dtype=torch.bool).repeat_interleave(shape.shared, dim=1)
    mask[:, groups * shape.shared :] = True
    mask[-1] = True
    return mask


def _task_mask(shape: Shape) -> torch.Tensor:
    """[tasks, experts]: each task's own experts, then one a group, then the shared ones."""
    tasks, groups = len(shape.classes), len(shape.groups)
    own = torch.eye(tasks, dtype=torch.bool).repeat_interleave(shape.own, dim=1)
    local = torch.zeros(tasks, groups, dtype=torch.bool)
    local[torch.arange(tasks), _group_of(shape)] = True
    return torch.cat((own, local, torch.ones(tasks, shape.shared, dtype=torch.bool)), dim=1)


def _group_of(shape: Shape) -> torch.Tensor:
    """[tasks]: the group that each task is in."""
    found = {task: number for number, group in enumerate(shape.groups) for task in group}
    return torch.tensor([found[task] for task in range(len(shape.classes))])


def _reads(shape: Shape) -> torch.Tensor:
    """[experts of the task layer]: which view each reads; own and group experts their group's, shared ones the last."""
    groups = len(shape.groups)
    own = _group_of(shape).repeat_interleave(shape.own)
    return torch.cat((own, torch.arange(groups), torch.full((shape.shared,), groups)))
