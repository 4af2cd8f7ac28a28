"""What sums and products of integers refuse, and what they do where PyTorch overflows."""

import pytest
import torch
import torch.nn.functional as F

from lowbit.functional.int8 import activations, arithmetic, norm, resize

A = torch.tensor([10, 250], dtype=torch.uint8)


@pytest.mark.parametrize("name", ["add", "add_relu", "mul", "mul_relu", "matmul"])
def test_two_dtypes_are_refused(name):
    with pytest.raises(TypeError, match=r"uint8 and torch\.int8: both must be of one dtype"):
        getattr(arithmetic, name)(A, 0.1, 0, A.to(torch.int8), 0.1, 0, 0.1, 0)


@pytest.mark.parametrize("name", ["add", "add_relu", "mul", "mul_relu", "matmul"])
@pytest.mark.parametrize(("scale", "zero_point"), [(0.0, 0), (0.1, 256)])
def test_a_result_needs_a_scale_and_a_zero_point(name, scale, zero_point):
    with pytest.raises(ValueError, match=r"scale must be positive|zero point 256 is outside"):
        getattr(arithmetic, name)(A, 0.1, 0, A, 0.1, 0, scale, zero_point)


def test_tensors_broadcast_and_saturate():
    found = arithmetic.add(A.reshape(2, 1), 1.0, 0, A, 1.0, 0, 1.0, 0)
    assert found.tolist() == [[20, 255], [255, 255]]


def test_nothing_is_below_the_zero_point_after_relu():
    found = arithmetic.add_relu(A, 1.0, 100, A, 1.0, 100, 2.0, 30)
    assert found.tolist() == [30, 180]
    assert arithmetic.mul_relu(A, 1.0, 100, A, 1.0, 0, 1.0, 7).tolist() == [7, 255]


def test_products_of_int32_do_not_wrap():
    a = torch.tensor([100_000, -100_000], dtype=torch.int32)
    assert arithmetic.mul(a, 1.0, 0, a, 1.0, 0, 1e6, 0).tolist() == [10_000, 10_000]


def test_matmul_is_exact_beyond_float32():
    a = torch.full((1, 4096), 255, dtype=torch.uint8)
    b = torch.full((4096, 1), 255, dtype=torch.uint8)
    total = 4096 * 255 * 255
    assert arithmetic.matmul(a, 1.0, 0, b, 1.0, 0, total / 100, 0).item() == 100


def test_cat_copies_integers_of_the_scale_of_the_result():
    found = arithmetic.cat([A, A], [0.1, 0.2], [0, 10], 0.1, 0)
    assert found.tolist() == [10, 250, 0, 255]
    with pytest.raises(ValueError, match="no tensors"):
        arithmetic.cat([], [], [], 0.1, 0)


def test_nan_is_no_factor():
    with pytest.raises(ValueError, match="NaN"):
        arithmetic.mul_scalar(A, 0.1, 0, float("nan"))


def test_threshold_replaces_what_is_not_above_it():
    found = activations.threshold(A, 0.1, 0, 1.0, 2.0)
    assert found.tolist() == [20, 250]


@pytest.mark.parametrize("eps", [1e-5, 3.0])
def test_normalisation_is_that_of_the_real_numbers(eps):
    values = torch.randint(0, 256, (4, 6, 5), dtype=torch.uint8)
    values[0] = 9  # constant: the variance is 0
    x, qparams, out = (values.double() - 100) * 0.02, (0.02, 100), (0.05, 128)
    weight, bias, mean, var = torch.randn(6), torch.randn(6), torch.randn(6), torch.rand(6)
    real = [t.double() for t in (weight, bias)]
    found = {
        norm.layer_norm(values, *qparams, [6, 5], None, None, eps, *out): F.layer_norm(
            x, [6, 5], eps=eps
        ),
        norm.group_norm(values, *qparams, 2, weight, bias, eps, *out): F.group_norm(
            x, 2, *real, eps=eps
        ),
        norm.instance_norm(values, *qparams, weight, bias, eps, *out): F.instance_norm(
            x, None, None, *real, eps=eps
        ),
        norm.batch_norm(values, *qparams, mean, var, weight, bias, eps, *out): F.batch_norm(
            x, mean.double(), var.double(), *real, eps=eps
        ),
    }
    for integers, exact in found.items():
        steps = (exact / 0.05 + 128).clamp(0, 255)
        assert (integers.double() - steps).abs().max() < 0.501


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: norm.layer_norm(A, 1.0, 0, [3], None, None, 1e-5, 1.0, 0), "its last axes"),
        (lambda: norm.group_norm(A[None], 1.0, 0, 3, None, None, 1e-5, 1.0, 0), "3 groups"),
        (lambda: norm.instance_norm(A[None], 1.0, 0, None, None, 1e-5, 1.0, 0), "n, c, ..."),
        (lambda: resize.interpolate(A.reshape(1, 1, 1, 2), 0), "one of size and scale_factor"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
