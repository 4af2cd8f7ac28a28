"""The specification of packed arithmetic, against float arithmetic and hand-made bits."""

import pytest
import torch
import torch.nn.functional as F

from lowbit.functional import bitplanes, packing, ternary, xnor

SIZES = [1, 31, 63, 64, 65, 127, 128, 255, 513]


def signs(*shape):
    return torch.where(torch.rand(shape) < 0.5, -1.0, 1.0)


@pytest.mark.parametrize("k", SIZES)
def test_one_negative_element_is_one_bit_of_its_word(k):
    for i in range(k):
        x = torch.ones(k)
        x[i] = -1
        words = packing.pack_signs(x).tolist()
        expected = [0] * packing.words_for(k)
        bit = 1 << (i % 64)
        expected[i // 64] = bit - 2**64 if bit == 2**63 else bit
        assert words == expected


@pytest.mark.parametrize("k", [0, *SIZES])
def test_unpacking_takes_packing_back_and_bits_past_the_end_are_zero(k):
    x = signs(2, 3, k)
    words = packing.pack_signs(x)
    assert words.shape == (2, 3, packing.words_for(k))
    assert torch.equal(packing.unpack_signs(words, k), x)
    tail = packing.unpack_bits(words, 64 * packing.words_for(k))[..., k:]
    assert not tail.any()


def test_zeros_are_positive_and_a_nan_is_found_when_asked():
    x = torch.tensor([0.0, -0.0, float("inf"), float("-inf")])
    assert packing.pack_signs(x).item() == 0b1000
    with pytest.raises(ValueError, match="1 NaN of 2 values"):
        packing.pack_signs(torch.tensor([1.0, float("nan")]), check=True)


def test_popcount_is_the_number_of_ones():
    words = torch.randint(-(2**63), 2**63 - 1, (1000,))
    words[:4] = torch.tensor([0, -1, -(2**63), 2**63 - 1])
    expected = [(word % 2**64).bit_count() for word in words.tolist()]
    assert packing.popcount(words).tolist() == expected


@pytest.mark.parametrize("k", SIZES)
def test_bgemm_is_the_product_of_signs(k):
    a, b = signs(5, k), signs(7, k)
    product = xnor.bgemm(packing.pack_signs(a), packing.pack_signs(b), k)
    assert torch.equal(product.float(), a @ b.T)
    assert product.dtype == torch.int32


def test_flipping_one_input_moves_the_result_by_two():
    a, b = signs(1, 100), signs(1, 100)
    before = xnor.bgemm(packing.pack_signs(a), packing.pack_signs(b), 100)
    a[0, 70] *= -1
    after = xnor.bgemm(packing.pack_signs(a), packing.pack_signs(b), 100)
    assert (after - before).item() == 2 * (a[0, 70] * b[0, 70]).item()


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": 2, "dilation": 2},
        {"groups": 2, "padding": 1},
        {"groups": 4},
    ],
    ids=str,
)
def test_bconv_is_the_convolution_of_signs(dims, pad_value, arguments):
    groups = arguments.get("groups", 1)
    x, w = torch.randn(2, 4, *[6] * dims), torch.randn(8, 4 // groups, *[3, 2, 3][:dims])
    x.flatten()[::5] = 0.0
    x.flatten()[1::5] = -0.0
    s, v = (torch.where(t >= 0, 1.0, -1.0) for t in (x, w))
    around = dict(arguments)
    padding = around.pop("padding", 0)
    s = F.pad(s, [padding] * (2 * dims), value=pad_value)
    expected = getattr(F, f"conv{dims}d")(s, v, **around)
    got = xnor.bconv(x, w, **arguments, pad_value=pad_value)
    assert torch.equal(got.float(), expected)


def test_bconv_of_long_rows():
    x, w = torch.randn(1, 512, 3, 3), torch.randn(2, 512, 3, 3)
    s, v = (torch.where(t >= 0, 1.0, -1.0) for t in (x, w))
    expected = F.conv2d(F.pad(s, [1] * 4, value=-1), v)
    assert torch.equal(xnor.bconv(x, w, padding=1).float(), expected)


@pytest.mark.parametrize("k", SIZES)
def test_ternary_products(k):
    a, b = signs(5, k), torch.randint(-1, 2, (7, k)).float()
    b_signs, mask = ternary.pack_ternary(b)
    assert torch.equal(ternary.unpack_ternary(b_signs, mask, k), b)
    product = ternary.ternary_bgemm(packing.pack_signs(a), b_signs, mask)
    assert torch.equal(product.float(), a @ b.T)


@pytest.mark.parametrize("k", [1, 64, 65, 300])
@pytest.mark.parametrize(("p", "q"), [(1, 1), (2, 2), (4, 3), (8, 8)])
def test_products_by_planes(k, p, q):
    a, b = torch.randint(2**p, (5, k)), torch.randint(2**q, (7, k))
    planes = bitplanes.bit_plane_matmul(bitplanes.bit_planes(a, p), bitplanes.bit_planes(b, q))
    assert torch.equal(planes, a @ b.T)
    s = signs(7, k)
    mixed = bitplanes.sign_plane_matmul(bitplanes.bit_planes(a, p), packing.pack_signs(s))
    assert torch.equal(mixed, a @ s.T.long())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: packing.unpack_bits(torch.zeros(2).long(), 64), "64 bits take 1 words"),
        (lambda: packing.unpack_bits(torch.zeros(2), 128), "packed words are int64"),
        (lambda: xnor.bgemm(*[torch.zeros(2, 2, dtype=torch.int64)] * 2, 64), r"\(rows, 1\)"),
        (lambda: xnor.bconv(torch.ones(1, 4, 5), torch.ones(2, 3, 3)), "4 input and 2 output"),
        (lambda: xnor.bconv(torch.ones(1, 4, 5), torch.ones(2, 4, 3), pad_value=2), "-1, 0 or 1"),
        (lambda: bitplanes.bit_planes(torch.tensor([4]), 2), "2 bits hold 0 to 3; got 4 to 4"),
    ],
)
def test_bad_input_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()
