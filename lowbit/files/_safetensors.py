"""Safetensors files whose tensors lie so in memory, once mapped, as torch allocates them."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lowbit._beside import beside

# Where torch's own memory begins. Products of floats are summed in another order where it does
# not, so safetensors' writer, which knows 8, would not give the saved model's bits.
ALIGNMENT = 64

NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}


def write(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path) -> None:
    """Write contiguous tensors of the processor, beside ``path`` first: there is never half."""
    # There are no gaps in such a file: those of whole lines go first, and begin at lines.
    order = sorted(
        tensors.items(),
        key=lambda item: (item[1].nbytes % ALIGNMENT != 0, -item[1].itemsize, item[0]),
    )
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in order:
        begin, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    with beside(path) as other, other.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for _, tensor in order:
            if tensor.nbytes:
                file.write(ctypes.string_at(tensor.data_ptr(), tensor.nbytes))


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where it does not begin as torch's own do."""
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()
