import math

import pytest
import torch

from lowbit import functional as lf


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_sign_has_two_values_and_zero_is_positive(dtype):
    smallest = torch.finfo(dtype).smallest_normal
    x = torch.tensor([-math.inf, -1, -smallest, -0.0, 0.0, smallest, 3, math.inf], dtype=dtype)
    expected = torch.tensor([-1, -1, -1, 1, 1, 1, 1, 1], dtype=dtype)
    assert torch.equal(lf.sign(x), expected)
    assert lf.sign(x).dtype == dtype


def test_nan_stays_nan():
    x = torch.tensor([math.nan, 1.0])
    assert lf.sign(x).isnan().tolist() == [True, False]
    assert lf.heaviside(x).isnan().tolist() == [True, False]


def test_heaviside_is_one_above_zero_only():
    assert lf.heaviside(torch.tensor([-1.0, -0.0, 0.0, 1e-30])).tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bound", [0.0, 0.1, 1.0, 1.25, 3.0, math.inf])
def test_clipped_gradient_is_the_gradient_where_the_input_is_within_the_bound(dtype, bound):
    edge = torch.tensor(bound, dtype=dtype)
    around = [edge, torch.nextafter(edge.float(), torch.tensor(math.inf)).to(dtype)]
    x = torch.stack([*around, edge * 2, torch.zeros((), dtype=dtype)])
    x = torch.cat([x, -x, torch.randn(1000).to(dtype) * 2])
    gradient = torch.randn(x.shape).to(dtype)
    expected = torch.where(x.abs() <= edge, gradient, torch.zeros((), dtype=dtype))
    assert torch.equal(lf.clip_gradient(gradient, x, bound), expected)
    assert torch.equal(lf.clip_gradient(gradient, x, bound, out=gradient), expected)


def test_next_above_is_the_very_next_number():
    from lowbit.functional.clip import next_above

    for dtype in (torch.float64, torch.float32):
        for bound in (0.0, 0.1, 1.0, 1.25):
            start = torch.tensor(bound, dtype=dtype)
            above = torch.nextafter(start, torch.tensor(math.inf, dtype=dtype))
            assert next_above(bound, dtype) == above.item()


def test_cancellation_is_the_identity_forward_and_works_under_transforms():
    x = torch.linspace(-2, 2, 9)
    assert torch.equal(lf.cancel_gradient(x, 1.0), x)
    gradient = torch.func.vmap(torch.func.grad(lambda z: lf.cancel_gradient(z, 1.0) * 3))(x)
    assert torch.equal(gradient, 3.0 * (x.abs() <= 1))
    assert lf.cancel_gradient(x, None) is x
