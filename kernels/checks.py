"""What the kernels take: shapes, dtypes, devices and strides, refused here with the words of what was meant.

A kernel that is handed a wrong stride reads another tensor's memory, so every `api.py` asks here before it launches.
The values of ids and weights are never read: that would wait for the device.
"""

import torch

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
ACTS = ("silu", "gelu", "gelu_tanh")


def check_experts(
    x: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, *, act: str
) -> None:
    """Raise `ValueError` unless the five tensors make one expert layer."""
    _dims(x=(x, 2), w1=(w1, 3), w2=(w2, 3), ids=(ids, 2), weights=(weights, 2))
    (tokens, hidden), (experts, two_inter, _) = x.shape, w1.shape
    if two_inter % 2:
        raise ValueError(f"w1 holds gate and up rows, so its second size must be even; it is {two_inter}")
    _shape("w1", w1, (experts, two_inter, hidden), "[E, 2I, H] with the H of x")
    _shape("w2", w2, (experts, hidden, two_inter // 2), "[E, H, I] with the sizes of x and w1")
    _shape("ids", ids, (tokens, ids.shape[1]), "[T, k] with the T of x")
    _shape("weights", weights, tuple(ids.shape), "[T, k], one for each id")
    if x.dtype not in FLOATS or w1.dtype != w2.dtype or w1.dtype != x.dtype:
        raise ValueError(f"x, w1 and w2 must share float32, float16 or bfloat16; got {x.dtype}, {w1.dtype}, {w2.dtype}")
    if act not in ACTS:
        raise ValueError(f"unknown activation {act!r}; known are {', '.join(ACTS)}")
    check_ids(ids)
    check_same_device(x=x, w1=w1, w2=w2, ids=ids, weights=weights)


def check_ids(ids: torch.Tensor) -> None:
    if ids.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"ids must be int32 or int64, not {ids.dtype}")


def check_rows(**tensors: torch.Tensor) -> None:
    """Raise `ValueError` unless each tensor's last dimension lies dense in memory."""
    for name, tensor in tensors.items():
        if tensor.stride(-1) != 1 and tensor.shape[-1] > 1:
            raise ValueError(f"the last dimension of {name} must be contiguous; its strides are {tensor.stride()}")


def check_same_device(**tensors: torch.Tensor) -> None:
    devices = {str(tensor.device) for tensor in tensors.values()}
    if len(devices) > 1:
        raise ValueError(f"{', '.join(tensors)} must be on one device, not on {' and '.join(sorted(devices))}")


def _dims(**tensors: tuple[torch.Tensor, int]) -> None:
    for name, (tensor, dims) in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a tensor, not {type(tensor).__name__}")
        if tensor.dim() != dims:
            raise ValueError(f"{name} must have {dims} dimensions; its shape is {tuple(tensor.shape)}")


def _shape(name: str, tensor: torch.Tensor, shape: tuple[int, ...], meaning: str) -> None:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} must be {meaning}: {shape}, not {tuple(tensor.shape)}")
