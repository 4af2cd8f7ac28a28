"""The Triton kernel of ``_gpu_signs.py``."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def sign_kernel() -> Any:
    """The kernel; Triton is imported by the first call, since it is not everywhere."""
    import triton  # type: ignore[import-untyped,import-not-found,unused-ignore]
    import triton.language as tl  # type: ignore[import-untyped,import-not-found,unused-ignore]

    @triton.jit  # type: ignore[untyped-decorator,unused-ignore]
    def signs(x, y, total, height, width, inner, above, beside, pad_value, block: tl.constexpr):  # type: ignore[no-untyped-def]
        """y (outer, height + 2 above, width + 2 beside, inner), dense, of x (outer, height, width,
        inner): its signs, NaN for NaN, with ``pad_value`` around them."""
        index = tl.program_id(0) * block + tl.arange(0, block)
        i, rest = index % inner, index // inner
        column, rest = rest % (width + 2 * beside) - beside, rest // (width + 2 * beside)
        row, outer = rest % (height + 2 * above) - above, rest // (height + 2 * above)
        in_x = (row >= 0) & (row < height) & (column >= 0) & (column < width) & (index < total)
        place = ((outer * height + row) * width + column) * inner + i
        value = tl.load(x + place, mask=in_x, other=0)
        if value.dtype != tl.float64:
            value = value.to(tl.float32)
        sign = tl.where(value >= 0, 1.0, -1.0)
        sign = tl.where(value == value, sign, float("nan"))
        sign = tl.where(in_x, sign, pad_value)
        tl.store(y + index, sign.to(y.dtype.element_ty), mask=index < total)

    return signs
