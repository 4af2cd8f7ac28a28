"""Companion layers against their papers' formulas, written again in NumPy, in float64."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from lowbit.nn.channel_mix import ChannelMix
from lowbit.nn.channel_scale import ChannelScale
from lowbit.nn.dprelu import DPReLU
from lowbit.nn.learned_scale import LearnedScale
from lowbit.nn.maxout import Maxout
from lowbit.nn.rprelu import RPReLU

SHAPES = [(4, 3), (2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 4)]


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in float64, its parameters drawn from N(0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=generator)
    return module


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def columns(parameter: torch.Tensor, ndim: int) -> np.ndarray:
    """(C,) as (1, C, 1, ...)."""
    return parameter.detach().numpy().reshape(1, -1, *[1] * (ndim - 2))


def prelu(z: np.ndarray, slope: np.ndarray) -> np.ndarray:
    return np.maximum(z, 0) + slope * np.minimum(z, 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_rprelu_is_a_prelu_between_two_shifts(shape):
    layer = randomised(RPReLU(3))
    x = drawn(*shape)
    gamma, beta, zeta = (columns(p, len(shape)) for p in (layer.gamma, layer.beta, layer.zeta))
    expected = prelu(x.numpy() + gamma, beta) + zeta
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_dprelu_has_two_slopes_and_two_shifts(shape):
    layer = randomised(DPReLU(3))
    x = drawn(*shape)
    positive, negative, alpha, eta = (
        columns(p, len(shape)) for p in (layer.positive, layer.negative, layer.alpha, layer.eta)
    )
    z = x.numpy() - alpha
    expected = positive * np.maximum(z, 0) + negative * np.minimum(z, 0) - eta
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_maxout_has_two_slopes(shape):
    layer = randomised(Maxout(3))
    x = drawn(*shape)
    positive, negative = (columns(p, len(shape)) for p in (layer.positive, layer.negative))
    expected = positive * np.maximum(x.numpy(), 0) - negative * np.maximum(-x.numpy(), 0)
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_learned_scale_multiplies_each_channel(shape):
    layer = randomised(LearnedScale(3))
    x = drawn(*shape)
    expected = x.numpy() * columns(layer.scales[0], len(shape))
    np.testing.assert_array_equal(layer(x).detach().numpy(), expected)


@pytest.mark.parametrize(
    ("shape", "sum_of_products"),
    [((2, 3, 5), "nch,c,h->nch"), ((2, 3, 4, 5), "nchw,c,h,w->nchw")],
)
def test_learned_scale_of_sizes_multiplies_by_the_outer_product(shape, sum_of_products):
    layer = randomised(LearnedScale(*shape[1:]))
    x = drawn(*shape)
    expected = np.einsum(sum_of_products, x.numpy(), *(s.detach().numpy() for s in layer.scales))
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-14)


def test_learned_scale_of_sizes_refuses_another_size():
    with pytest.raises(ValueError, match=r"\(3, 4, 5\).*\(2, 3, 4, 1\)"):
        LearnedScale(3, 4, 5)(torch.zeros(2, 3, 4, 1))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(4, 16), (2, 16, 3, 5)])
def test_channel_scale_is_a_gate_computed_from_the_real_input(shape, bias):
    layer = randomised(ChannelScale(16, 6, bias=bias))
    a, x = drawn(*shape), drawn(shape[0], 6, *[2] * (len(shape) - 2), seed=2)
    mean = a.numpy().mean(axis=tuple(range(2, a.ndim)))
    w1, w2 = layer.reduce.weight.detach().numpy(), layer.expand.weight.detach().numpy()
    b1, b2 = (m.bias.detach().numpy() if bias else 0 for m in (layer.reduce, layer.expand))
    gate = 1 / (1 + np.exp(-(np.maximum(mean @ w1.T + b1, 0) @ w2.T + b2)))
    expected = x.numpy() * gate.reshape(*gate.shape, *[1] * (x.ndim - 2))
    np.testing.assert_allclose(layer(x, a).detach().numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_channel_mix_takes_a_share_of_each(shape):
    layer = ChannelMix(3).double()
    assert layer.share.tolist() == [0.5] * 3
    nn.init.uniform_(layer.share)
    x, y = drawn(*shape), drawn(*shape, seed=2)
    share = columns(layer.share, len(shape))
    expected = share * x.numpy() + (1 - share) * y.numpy()
    np.testing.assert_allclose(layer(x, y).detach().numpy(), expected, rtol=1e-12)


def test_channel_mix_keeps_its_shares_from_0_to_1_and_their_gradients_at_the_ends():
    layer = ChannelMix(3)
    outside = torch.tensor([-0.5, 0.25, 1.5])
    x, y = torch.ones(2, 3, requires_grad=True), torch.zeros(2, 3)
    layer.share.data.copy_(outside)
    assert layer.eval()(x, y)[0].tolist() == [0.0, 0.25, 1.0]
    assert torch.equal(layer.share, outside)
    # Twice, as two views of an image would: the second call must not upset the first.
    (layer.train()(x, y) + layer(x, y)).sum().backward()
    assert layer.share.tolist() == [0.0, 0.25, 1.0]
    assert layer.share.grad.tolist() == [4.0, 4.0, 4.0]


def test_channel_scale_reduces_by_eight_and_refuses_to_leave_no_channel():
    assert ChannelScale(64, 32).reduce.out_features == 8
    with pytest.raises(ValueError, match="reduction=8"):
        ChannelScale(4, 4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RPReLU(3),
        lambda: DPReLU(3),
        lambda: Maxout(3),
        lambda: LearnedScale(3),
        lambda: LearnedScale(3, 4, 5),
        lambda: ChannelScale(3, 3, reduction=1),
        lambda: ChannelMix(3),
    ],
    ids=["rprelu", "dprelu", "maxout", "scale", "product", "channel_scale", "channel_mix"],
)
class TestEveryCompanion:
    def inputs(self, layer: nn.Module) -> tuple[torch.Tensor, ...]:
        x = drawn(2, 3, 4, 5)
        if isinstance(layer, ChannelMix):
            return x, drawn(2, 3, 4, 5, seed=2)
        return (x, drawn(2, 3, 8, 8, seed=2)) if isinstance(layer, ChannelScale) else (x,)

    def test_gradients_match_finite_differences(self, make):
        layer = randomised(make()).eval()  # ChannelMix moves its parameter in training
        inputs = tuple(x.requires_grad_() for x in self.inputs(layer))
        names, parameters = zip(*layer.named_parameters(), strict=True)

        def call(*tensors):
            state = dict(zip(names, tensors[len(inputs) :], strict=True))
            return torch.func.functional_call(layer, state, tensors[: len(inputs)])

        assert torch.autograd.gradcheck(call, (*inputs, *parameters))

    def test_it_compiles_copies_and_pickles(self, make):
        layer = randomised(make())
        inputs = self.inputs(layer)
        expected = layer(*inputs)
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        for other in (compiled, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            torch.testing.assert_close(other(*inputs), expected)

    def test_half_precision_autocast_is_finite(self, make):
        layer = make()
        inputs = tuple(x.bfloat16() for x in self.inputs(layer))
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(*inputs).isfinite().all()


def test_companions_start_as_the_papers_say():
    x = drawn(2, 3, 4, 4).float()
    assert torch.equal(LearnedScale(3)(x), x)
    assert torch.equal(LearnedScale(3, 4, 4)(x), x)
    expected = torch.where(x > 0, x, 0.25 * x)
    for layer in (RPReLU(3), DPReLU(3), Maxout(3)):
        assert torch.equal(layer(x), expected)
