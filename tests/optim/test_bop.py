"""Bop against a loop over single weights, and the facts its docstring states."""

import numpy as np
import pytest
import torch
from torch import nn

from lowbit.optim import Bop


def weights(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize("threshold", [0.0, 1e-2, 0.3])
def test_bop_equals_a_loop_over_single_weights(threshold):
    generator = np.random.default_rng(0)
    gradients = generator.standard_normal((40, 30))
    start = generator.standard_normal(30)
    gamma = 0.2

    expected = np.where(start >= 0, 1.0, -1.0)
    momentum = np.zeros(30)
    flips = 0
    for gradient in gradients:
        for i in range(30):
            momentum[i] = (1 - gamma) * momentum[i] + gamma * gradient[i]
            if abs(momentum[i]) >= threshold and np.sign(momentum[i]) == expected[i]:
                expected[i] = -expected[i]
                flips += 1
    assert flips > 50  # the comparison below is about flips

    parameter = weights(*start)
    optimizer = Bop([parameter], lr=gamma, threshold=threshold)
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient)
        optimizer.step()
    np.testing.assert_array_equal(parameter.detach().numpy(), expected)
    np.testing.assert_allclose(
        optimizer.state[parameter]["momentum"].numpy(), momentum, rtol=0, atol=1e-15
    )


def test_the_first_step_makes_weights_their_signs_with_plus_one_for_zero():
    parameter = weights(0.3, -0.2, 0.0, -0.0)
    parameter.grad = torch.zeros(4, dtype=torch.float64)
    Bop([parameter]).step()
    assert parameter.tolist() == [1.0, -1.0, 1.0, 1.0]


def test_no_gradient_flips_nothing_at_threshold_zero():
    parameter = weights(1.0, -1.0)
    optimizer = Bop([parameter], lr=0.1, threshold=0.0)
    for _ in range(3):
        parameter.grad = torch.zeros(2, dtype=torch.float64)
        optimizer.step()
        assert parameter.tolist() == [1.0, -1.0]


def test_the_threshold_itself_flips():
    parameter = weights(1.0, 1.0)
    parameter.grad = torch.tensor([0.5, 0.4999], dtype=torch.float64)
    Bop([parameter], lr=1.0, threshold=0.5).step()
    assert parameter.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_shows_in_the_weight(bad):
    parameter = weights(1.0, 1.0)
    parameter.grad = torch.tensor([bad, 0.0], dtype=torch.float64)
    Bop([parameter]).step()
    assert parameter[0].isnan()
    assert parameter[1] == 1


def test_parameters_without_gradient_are_left_alone():
    parameter = weights(0.3)
    Bop([parameter]).step()
    assert parameter.item() == 0.3


def test_a_scheduler_drives_gamma():
    parameter = weights(1.0)
    optimizer = Bop([parameter], lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    parameter.grad = torch.tensor([-1.0], dtype=torch.float64)
    optimizer.step()
    scheduler.step()
    assert optimizer.state[parameter]["momentum"].item() == pytest.approx(-1e-2)
    parameter.grad.zero_()
    optimizer.step()
    assert optimizer.state[parameter]["momentum"].item() == pytest.approx(-1e-2 * (1 - 1e-3))


def test_closure_runs_with_gradients_and_its_loss_is_returned():
    parameter = weights(1.0)
    optimizer = Bop([parameter], lr=1.0)

    def closure():
        optimizer.zero_grad()
        loss = (parameter * 3).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3
    assert parameter.item() == -1


@pytest.mark.parametrize(
    ("arguments", "message"), [({"lr": 1.5}, "lr=1.5"), ({"threshold": -1.0}, "threshold=-1.0")]
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Bop([weights(1.0)], **arguments)


def test_sparse_gradients_are_refused():
    layer = nn.Embedding(3, 2, sparse=True)
    layer(torch.tensor([0])).sum().backward()
    with pytest.raises(ValueError, match="sparse=False"):
        Bop(layer.parameters()).step()
