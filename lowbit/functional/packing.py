"""Signs as bits, 64 to a word. The bit order of the whole project is said here.

Words are int64. Bit j of word w (the least significant is bit 0) holds element 64 w + j of the
last axis: 1 where it is negative, 0 where it is not (so 0.0 and -0.0 are 0). The bits past the
end are 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 64


def words_for(k: int) -> int:
    """How many words hold k bits.

    >>> [words_for(k) for k in (0, 1, 64, 65)]
    [0, 1, 1, 2]
    """
    return -(-k // WORD)


def pack_bits(bits: Tensor) -> Tensor:
    """Pack booleans: (..., k) bool -> (..., words_for(k)) int64."""
    k = bits.shape[-1]
    words = words_for(k)
    padded = bits.new_zeros((*bits.shape[:-1], words * WORD))
    padded[..., :k] = bits
    # 1 << 63 is the smallest int64, and no two addends share a bit: sums are exact.
    places = torch.ones(WORD, dtype=torch.int64, device=bits.device) << torch.arange(
        WORD, device=bits.device
    )
    return (padded.view(*bits.shape[:-1], words, WORD) * places).sum(-1)


def unpack_bits(words: Tensor, k: int) -> Tensor:
    """The k booleans of the last axis: (..., words) int64 -> (..., k) bool."""
    _check_words(words, k)
    places = torch.arange(WORD, device=words.device)
    return ((words.unsqueeze(-1) >> places) & 1).flatten(-2)[..., :k].bool()


def pack_signs(x: Tensor, check: bool = False) -> Tensor:
    """Pack the signs of the last axis: (..., k) -> (..., words_for(k)) int64.

    A NaN has no sign; it packs as 0, or with ``check`` raises ``ValueError``.

    >>> pack_signs(torch.tensor([1.0, -1.0, -0.0, -2.0]))
    tensor([10])
    """
    if check and x.is_floating_point() and bool(x.isnan().any()):
        raise ValueError(
            f"cannot pack {int(x.isnan().sum())} NaN of {x.numel()} values: a NaN has no sign; "
            "find where it arises, for example with torch.autograd.detect_anomaly()"
        )
    return pack_bits(x < 0)


def unpack_signs(words: Tensor, k: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The signs that words hold: (..., words) int64 -> (..., k), -1 and +1 in ``dtype``.

    >>> unpack_signs(torch.tensor([10]), 4)
    tensor([ 1., -1.,  1., -1.])
    """
    return 1 - 2 * unpack_bits(words, k).to(dtype)


def popcount(words: Tensor) -> Tensor:
    """How many bits of each word are 1: int64 -> int64 of the same shape.

    >>> popcount(torch.tensor([0, 1, 10, -1]))
    tensor([ 0,  1,  2, 64])
    """
    # In pairs, nibbles, bytes; every shift is masked, as >> copies the sign bit down.
    x = words - ((words >> 1) & 0x5555555555555555)
    x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F
    return ((x * 0x0101010101010101) >> 56) & 0xFF


def _check_words(words: Tensor, k: int) -> None:
    if words.dtype != torch.int64:
        raise ValueError(f"packed words are int64; got {words.dtype}")
    if words.shape[-1] != words_for(k):
        raise ValueError(
            f"{k} bits take {words_for(k)} words of {WORD}; the last axis has {words.shape[-1]}"
        )
