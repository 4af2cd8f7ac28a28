"""Fake quantizers as modules: switches, shapes, copies, graphs."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lowbit import observers as o

SIGNED = {"quant_min": -8, "quant_max": 7, "dtype": "qint8"}
PER_CHANNEL = {"observer": o.MovingAveragePerChannelMinMaxObserver, **SIGNED}
KINDS = {
    "tensor": lambda: o.FakeQuantize(**SIGNED, qscheme="per_tensor_symmetric"),
    "channel": lambda: o.FakeQuantize(**PER_CHANNEL, qscheme="per_channel_symmetric"),
    "rows": lambda: o.default_embedding_fake_quant_4bit(),
    "fused": lambda: o.default_fused_act_fake_quant(),
    "histogram": lambda: o.default_histogram_fake_quant(),
    "fixed": lambda: o.default_fixed_qparams_range_neg1to1_fake_quant(),
}


@pytest.fixture(params=KINDS)
def fake(request):
    return KINDS[request.param]()


def test_few_values_come_out(fake):
    x = torch.randn(3, 500)
    rows = fake(x) if fake.is_per_channel else fake(x).reshape(1, -1)
    assert all(1 < len(row.unique()) <= 2**fake.bits for row in rows)


def test_what_is_trained_is_what_is_converted(fake):
    x = torch.randn(3, 500)
    y = fake(x)
    scale, zero_point = fake.calculate_qparams()
    assert torch.equal(fake.scale, scale)
    assert torch.equal(fake.zero_point, zero_point.to(fake.zero_point.dtype))
    fake.disable_observer()
    assert torch.equal(fake(x), y)


def test_a_switched_off_quantizer_returns_its_input(fake):
    x = torch.randn(3, 5)
    fake.disable_fake_quant()
    assert fake(x) is x
    fake.enable_fake_quant()
    assert fake(x) is not x


def test_a_switched_off_observer_keeps_the_grid(fake):
    fake(torch.randn(3, 5))
    kept = fake.scale.clone()
    fake.disable_observer()
    fake(100 * torch.randn(3, 5))
    assert torch.equal(fake.scale, kept)


@pytest.mark.parametrize("how", ["in place", "replaced", "loaded"])
def test_a_switch_may_be_written_by_hand(how):
    fake, x = o.FakeQuantize(), torch.randn(9)
    fake(x)
    if how == "in place":
        fake.fake_quant_enabled[0] = 0
    elif how == "replaced":
        fake.fake_quant_enabled = torch.zeros(1, dtype=torch.uint8)
    else:
        state = fake.state_dict()
        fake.load_state_dict({**state, "fake_quant_enabled": torch.tensor([0])})
    assert fake(x) is x


def test_the_switches_of_a_model_are_reached_by_apply():
    model = nn.Sequential(o.FakeQuantize(), nn.ReLU(), o.FakeQuantize())
    x = torch.randn(20)
    model(x)
    for turn, switch, value in (
        (o.disable_fake_quant, "fake_quant_enabled", 0),
        (o.enable_fake_quant, "fake_quant_enabled", 1),
        (o.disable_observer, "observer_enabled", 0),
        (o.enable_observer, "observer_enabled", 1),
    ):
        model.apply(turn)
        assert [getattr(model[i], switch).item() for i in (0, 2)] == [value, value]


def test_copies_and_saved_states_round_alike(fake):
    x = torch.randn(3, 50)
    fake(x)
    fake.disable_observer()
    loaded = copy.deepcopy(fake)
    loaded.load_state_dict(pickle.loads(pickle.dumps(fake.state_dict())))
    for other in (copy.deepcopy(fake), pickle.loads(pickle.dumps(fake)), loaded):
        assert torch.equal(other(x), fake(x))


def test_a_state_of_channels_loads_into_a_fresh_one():
    fake, x = KINDS["channel"](), torch.randn(6, 20)
    y = fake(x)
    fresh = KINDS["channel"]()
    fresh.load_state_dict(fake.state_dict())
    fresh.disable_observer()
    assert torch.equal(fresh(x), y)


@pytest.mark.parametrize("kind", ["tensor", "channel", "rows", "fused"])
def test_observing_and_rounding_compile_to_one_graph(kind):
    fake = KINDS[kind]()
    fake.bind(6, 0)
    other = copy.deepcopy(fake)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    for k in (1, 3):
        a, b = (k * torch.ones(6, 9).cumsum(1) / 9).requires_grad_(), None
        b = a.detach().clone().requires_grad_()
        y, z = fake(a), compiled(b)
        y.square().sum().backward()
        z.square().sum().backward()
        assert torch.equal(y, z)
        assert torch.equal(a.grad, b.grad)
    assert torch.equal(fake.scale, other.scale)
    other.disable_fake_quant()
    x = torch.randn(6, 9)
    assert torch.equal(compiled(x), x)


@pytest.mark.parametrize("kind", ["tensor", "channel", "rows"])
def test_a_trained_one_exports_with_any_batch(kind):
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.fake = KINDS[kind]()

        def forward(self, x):
            return self.fake(x.t()).t()

    model = Turned()
    model(torch.randn(4, 6))
    model.apply(o.disable_observer)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.randn(4, 6),), dynamic_shapes=({0: batch},))
    x = torch.randn(7, 6)
    assert torch.equal(program.module()(x), model(x))


def test_learning_moves_the_grid_and_a_symmetric_zero_point_stays():
    fake = o.LearnableFakeQuantize(**SIGNED, qscheme="per_tensor_symmetric")
    x = torch.randn(200)
    fake(x)
    assert not fake.scale.requires_grad
    fake.enable_param_learning()
    before = fake.scale.detach().clone()
    assert fake.scale.requires_grad
    assert not fake.zero_point.requires_grad
    optimizer = torch.optim.SGD(fake.parameters(), lr=1e-3)
    errors = []
    for _ in range(30):
        optimizer.zero_grad()
        error = (fake(x) - x).square().sum()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < errors[0]
    assert not torch.equal(fake.scale, before)
    scale, zero_point = fake.calculate_qparams()
    assert torch.equal(scale, fake.scale.detach())
    assert zero_point.item() == 0


def test_a_learned_scale_never_falls_to_zero():
    fake = o.LearnableFakeQuantize(**SIGNED, qscheme="per_tensor_symmetric")
    fake(torch.randn(9))
    fake.enable_param_learning()
    with torch.no_grad():
        fake.scale.fill_(-1)
    y = fake(torch.randn(9))
    assert y.isfinite().all()
    assert fake.calculate_qparams()[0] == torch.finfo(torch.float32).eps


def test_the_modes_of_learning_switch_each_other():
    fake = o.LearnableFakeQuantize(**SIGNED, qscheme="per_tensor_affine")
    x = torch.randn(20)
    fake.enable_static_observation()
    assert fake(x) is x
    assert fake.scale.item() != 1
    fake.enable_static_estimate()
    assert len(fake(x).unique()) <= 16
    fake.enable_param_learning()
    kept = fake.scale.detach().clone()
    fake(100 * x)
    assert torch.equal(fake.scale, kept)
    assert fake.zero_point.requires_grad


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: o.FakeQuantize(o.PlaceholderObserver, dtype=torch.float16), "has no grid"),
        (lambda: o.FakeQuantize(o.NoopObserver), "has no grid"),
        (lambda: o.FakeQuantize(quant_min=-1, quant_max=4), "among those of uint8"),
        (lambda: o.FusedMovingAvgObsFakeQuantize(o.MinMaxObserver), "needs MovingAverage"),
        (lambda: o.FixedQParamsFakeQuantize(o.MinMaxObserver), "needs a FixedQParamsObserver"),
        (lambda: o.LearnableFakeQuantize(channel_len=0), "got 0"),
    ],
)
def test_what_cannot_be_is_refused_with_words(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_the_wrong_number_of_channels_is_told():
    fake = o.LearnableFakeQuantize(
        o.MovingAveragePerChannelMinMaxObserver, **SIGNED, qscheme="per_channel_symmetric"
    )
    with pytest.raises(ValueError, match="give channel_len=6"):
        fake(torch.randn(6, 3))
