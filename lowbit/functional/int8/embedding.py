"""Embeddings whose rows hold 8, 4 or 2 bits for each number.

A table is a plain uint8 matrix, one row for each entry: the integers, several to a byte with the
first in the lowest bits, then the bytes of the row's scale and bias, as float32 for 8 bits and
as float16 for fewer. A number is integer * scale + bias. It is the layout of FBGEMM, and of
``torch.ops.quantized.embedding_bag_byte_prepack`` and its 4bit and 2bit siblings.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lowbit.functional.int8.quantize import check_real, quantize

# A range divided by its steps that is not greater than this counts as constant.
_EPS = torch.finfo(torch.float32).eps


def quantize_rows(weight: Tensor, bits: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Integers (n, d) uint8, scales and real zero points (n,) float32 of weight (n, d).

    With n = 2^bits - 1: scale = (max - min) / n of the row, or 1 where that is tiny;
    zero point = -min / scale; integer = clamp(round(w * (1/scale) + zero point), 0, n).
    """
    steps = _steps(bits)
    check_real(weight)
    low, high = torch.aminmax(weight.float(), dim=1)
    scales = (high - low) / steps
    scales = torch.where(scales > _EPS, scales, torch.ones_like(scales))
    zero_points = -low / scales
    codes = quantize(weight, scales, zero_points, "uint8", axis=0)
    return codes.clamp_max(steps), scales, zero_points


def pack_rows(codes: Tensor, scales: Tensor, zero_points: Tensor, bits: int = 8) -> Tensor:
    """The table of integers (n, d) with a scale and a real zero point for each row.

    bias = -zero point * scale. ValueError where d numbers do not fill whole bytes, and where
    the float16 of 4 and 2 bits does not hold a scale or a bias.
    """
    biases = -zero_points.float() * scales.float()
    return _join(codes, scales.float(), biases, bits)


def prepack(weight: Tensor, bits: int = 8) -> Tensor:
    """The table of real numbers (n, d), with each row's least number as its bias.

    As FBGEMM: 8 bits have scale = (max - min) / 255 and round((w - min) * (255 / (max - min +
    1e-8))); 4 and 2 bits round min and scale to float16 first, and divide by that scale.
    """
    steps = _steps(bits)
    check_real(weight)
    w = weight.float()
    low, high = torch.aminmax(w, dim=1)
    if bits == 8:
        scales, inverse = (high - low) / steps, steps / (high - low + 1e-8)
    else:
        low = low.half().float()
        scales = ((high - low) / steps).half().float()
        inverse = 1 / scales
        # A scale of 0, or one whose reciprocal is infinite.
        constant = torch.isinf(inverse)
        scales, inverse = (torch.where(constant, 1.0, x) for x in (scales, inverse))
    codes = torch.round((w - low[:, None]) * inverse[:, None]).clamp(0, steps).to(torch.uint8)
    return _join(codes, scales, low, bits)


def unpack_rows(table: Tensor, bits: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Integers (n, d) uint8, scales and biases (n,) float32 of a table."""
    _steps(bits)
    real = _real_dtype(bits)
    tail = 2 * real.itemsize
    if table.dtype != torch.uint8 or table.dim() != 2 or table.shape[1] < tail:
        raise ValueError(
            f"a table of {bits}-bit rows is a uint8 matrix with {tail} bytes of scale and bias "
            f"in each row, not {table.dtype} of shape {tuple(table.shape)}"
        )
    packed = table[:, : table.shape[1] - tail]
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=table.device)
    codes = ((packed.unsqueeze(-1) >> shifts) & _steps(bits)).flatten(1)
    # Through clone: a view as another dtype needs its bytes aligned.
    scales, biases = table[:, -tail:].clone().view(real).float().unbind(1)
    return codes, scales, biases


def embedding(table: Tensor, indices: Tensor, bits: int = 8) -> Tensor:
    """Rows of a table as real numbers: indices of any shape -> (*indices, d) float32.

    Raises IndexError for indices outside the table.
    """
    _check_indices(indices, len(table))
    codes, scales, biases = unpack_rows(table.index_select(0, indices.flatten()), bits)
    rows = codes * scales.unsqueeze(1) + biases.unsqueeze(1)
    return rows.reshape(*indices.shape, -1)


def embedding_bag(
    table: Tensor,
    indices: Tensor,
    offsets: Tensor | None = None,
    bits: int = 8,
    mode: str = "sum",
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sum, mean or max of bags of rows: ``torch.nn.functional.embedding_bag`` of real numbers.

    ``indices`` (bags, size), or a vector with the ``offsets`` where bags begin -> (bags, d)
    float32. Entries equal to ``padding_idx`` do not count; an empty bag is 0. Raises IndexError
    for indices outside the table, ValueError where torch's function does.
    """
    rows = embedding(table, indices.flatten(), bits)
    # Each entry looks up its own row; those of the padding look up one more, of zeros.
    entries = torch.arange(len(rows), device=table.device)
    padding = None
    if padding_idx is not None:
        padding = len(rows)
        padded = indices.flatten() == padding_idx % len(table)
        entries = entries.masked_fill(padded, padding)
        rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
    return F.embedding_bag(
        entries.reshape(indices.shape),
        rows,
        None if offsets is None else offsets.long(),
        mode=mode,
        per_sample_weights=per_sample_weights,
        include_last_offset=include_last_offset,
        padding_idx=padding,
    )


def _steps(bits: int) -> int:
    if bits not in (8, 4, 2):
        raise ValueError(f"rows of an embedding have 8, 4 or 2 bits for each number, not {bits}")
    return (1 << bits) - 1


def _real_dtype(bits: int) -> torch.dtype:
    return torch.float32 if bits == 8 else torch.float16


def _join(codes: Tensor, scales: Tensor, biases: Tensor, bits: int) -> Tensor:
    _steps(bits)
    in_byte = 8 // bits
    if codes.shape[1] % in_byte:
        raise ValueError(
            f"{in_byte} numbers of {bits} bits share a byte, so the number of columns must be a "
            f"multiple of {in_byte}, not {codes.shape[1]}"
        )
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes.device)
    parts = codes.unflatten(1, (-1, in_byte)) << shifts
    packed = parts.sum(-1, dtype=torch.uint8)
    real = torch.stack([scales, biases], 1).to(_real_dtype(bits))
    if not torch.compiler.is_compiling() and not bool(torch.isfinite(real).all()):
        row = int(torch.isfinite(real).all(1).logical_not().nonzero()[0])
        raise ValueError(
            f"row {row} has the scale {float(scales[row])} and the bias {float(biases[row])}, "
            f"which {real.dtype} does not hold" + (": 8 bits have float32" if bits < 8 else "")
        )
    return torch.cat([packed, real.view(torch.uint8)], 1)


def _check_indices(indices: Tensor, rows: int) -> None:
    if torch.compiler.is_compiling():
        return
    outside = (indices < 0) | (indices >= rows)
    if bool(outside.any()):
        raise IndexError(
            f"index {int(indices[outside][0])} is outside a table of {rows} rows, 0 to {rows - 1}"
        )
