"""Tables of 8-, 4- and 2-bit rows."""

import pytest
import torch
import torch.nn.functional as F

from lowbit.functional.int8 import embedding

BITS = [8, 4, 2]


@pytest.mark.parametrize("bits", BITS)
def test_packing_is_undone_by_unpacking(bits):
    codes, scales, zero_points = embedding.quantize_rows(torch.randn(10, 16), bits)
    assert codes.max() == 2**bits - 1
    assert codes.min() == 0
    table = embedding.pack_rows(codes, scales, zero_points, bits)
    assert table.shape == (10, 16 * bits // 8 + (8 if bits == 8 else 4))
    unpacked, found_scales, biases = embedding.unpack_rows(table, bits)
    assert torch.equal(unpacked, codes)
    precision = 1e-7 if bits == 8 else 1e-3
    torch.testing.assert_close(found_scales, scales, rtol=precision, atol=0)
    torch.testing.assert_close(biases, -zero_points * scales, rtol=precision, atol=0)


def test_the_first_number_has_the_lowest_bits():
    codes = torch.tensor([[1, 2, 3, 0]], dtype=torch.uint8)
    one, zero = torch.ones(1), torch.zeros(1)
    assert embedding.pack_rows(codes, one, zero, 4)[0, :2].tolist() == [0x21, 0x03]
    assert embedding.pack_rows(codes, one, zero, 2)[0, 0].item() == 0b00_11_10_01


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("make", ["prepack", "quantize"])
def test_a_number_is_at_most_half_a_step_away(bits, make):
    weight = torch.randn(10, 16)
    if make == "prepack":
        table = embedding.prepack(weight, bits)
    else:
        table = embedding.pack_rows(*embedding.quantize_rows(weight, bits), bits)
    rows = embedding.embedding(table, torch.arange(10).reshape(5, 2), bits)
    assert rows.shape == (5, 2, 16)
    steps = (weight.amax(1) - weight.amin(1)) / (2**bits - 1)
    # float16 bias and scale move the grid a little.
    assert ((rows.reshape(10, 16) - weight).abs() <= steps[:, None] * 0.5 + 4e-3).all()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding_idx", [None, 3, -1])
@pytest.mark.parametrize("include_last_offset", [False, True])
def test_a_bag_is_that_of_the_real_table(bits, mode, padding_idx, include_last_offset):
    table = embedding.prepack(torch.randn(10, 8), bits)
    real = embedding.embedding(table, torch.arange(10), bits)
    indices = torch.tensor([3, 1, 9, 9, 0, 3, 3, 5])
    offsets = torch.tensor([0, 2, 2, 5, 7] + [8] * include_last_offset, dtype=torch.int32)
    options = {
        "mode": mode,
        "include_last_offset": include_last_offset,
        "padding_idx": padding_idx,
    }
    if mode == "sum":
        options["per_sample_weights"] = torch.randn(8)
    found = embedding.embedding_bag(table, indices, offsets, bits, **options)
    torch.testing.assert_close(found, F.embedding_bag(indices, real, offsets.long(), **options))


def test_a_matrix_of_indices_is_a_bag_for_each_row():
    table = embedding.prepack(torch.randn(10, 8))
    indices = torch.tensor([[0, 1], [7, 7]], dtype=torch.int32)
    rows = embedding.embedding(table, indices)
    torch.testing.assert_close(embedding.embedding_bag(table, indices), rows.sum(1))


@pytest.mark.parametrize("index", [-1, 10])
def test_indices_outside_the_table_are_refused(index):
    table = embedding.prepack(torch.randn(10, 8))
    for function in (embedding.embedding, embedding.embedding_bag):
        with pytest.raises(IndexError, match=f"index {index} is outside"):
            function(table, torch.tensor([[1, index]]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: embedding.prepack(torch.randn(2, 8), 3), "8, 4 or 2 bits"),
        (lambda: embedding.prepack(torch.randn(2, 6), 2), "multiple of 4, not 6"),
        (lambda: embedding.prepack(torch.randn(2, 8) * 1e6, 4), "float16 does not hold"),
        (lambda: embedding.unpack_rows(torch.zeros(2, 3, dtype=torch.uint8)), "8 bytes of scale"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
