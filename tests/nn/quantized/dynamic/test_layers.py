"""What dynamic layers keep, take, refuse, and how they are copied and traced."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

import lowbit
from lowbit.nn.quantized import dynamic
from tests.nn.quantized.dynamic._observers import FLOAT16, PER_CHANNEL, UNSIGNED


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


FLOATS = {
    "Linear": (lambda: nn.Linear(20, 30), (7, 20)),
    "Linear.nobias": (lambda: nn.Linear(20, 30, bias=False), (2, 3, 20)),
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3, 2, 1, groups=2), (3, 4, 11)),
    "Conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), 1, (1, 0), 2), (3, 4, 9, 8)),
    "Conv2d.reflect": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (1, 4, 5, 6)),
    "Conv2d.same": (lambda: nn.Conv2d(4, 6, (3, 4), padding="same"), (1, 4, 5, 6)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2, padding=1, bias=False), (1, 2, 4, 5, 6)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3, 2, 1, 1), (2, 4, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, groups=2), (2, 4, 5, 3)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2, 2), (1, 2, 3, 2, 3)),
    "RNNCell": (lambda: nn.RNNCell(10, 20), (6, 10)),
    "RNNCell.relu": (lambda: nn.RNNCell(10, 20, nonlinearity="relu"), (6, 10)),
    "LSTMCell": (lambda: nn.LSTMCell(10, 20), (6, 10)),
    "GRUCell": (lambda: nn.GRUCell(10, 20), (6, 10)),
    "LSTM": (lambda: nn.LSTM(10, 20, 2, bidirectional=True), (5, 3, 10)),
    "LSTM.batch_first": (lambda: nn.LSTM(10, 20, batch_first=True), (3, 5, 10)),
    "GRU": (lambda: nn.GRU(10, 20, 2), (5, 3, 10)),
    "GRU.unbatched": (lambda: nn.GRU(10, 20, bidirectional=True), (5, 10)),
}
every = pytest.mark.parametrize("name", FLOATS)


def made(name, qconfig=None, **options):
    """(torch's float module, the dynamic one of it, an input)."""
    torch.manual_seed(0)
    make, shape = FLOATS[name]
    mod = make().eval()
    mod.qconfig = qconfig
    m = getattr(dynamic, name.partition(".")[0]).from_float(mod)
    for key, value in options.items():
        setattr(m, key, value)
    return mod, m, draw(*shape)


def tensors(out):
    """The tensors of an output."""
    if isinstance(out, torch.Tensor):
        return [out]
    return [tensor for part in out for tensor in tensors(part)]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


@every
def test_it_is_close_to_the_float_module_and_closer_in_8_bits(name):
    errors = []
    for reduce_range in (True, False):
        mod, m, x = made(name, reduce_range=reduce_range)
        expected, found = tensors(mod(x)), tensors(m(x))
        assert [y.shape for y in found] == [y.shape for y in expected]
        pairs = zip(found, expected, strict=True)
        errors.append(max(float((a - b).norm().detach() / b.norm().detach()) for a, b in pairs))
    assert 0 < errors[0] < 0.03
    assert errors[1] < 0.025


@every
def test_copies_pickles_and_states_give_the_same(name, tmp_path):
    _, m, x = made(name)
    expected = m(x)
    assert same(copy.deepcopy(m)(x), expected)
    assert same(pickle.loads(pickle.dumps(m))(x), expected)
    torch.save(m.state_dict(), tmp_path / "state.pt")
    other = getattr(dynamic, name.partition(".")[0]).from_float(_fresh(name))
    assert not same(other(x), expected)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert same(other(x), expected)


def _fresh(name):
    torch.manual_seed(1)
    mod = FLOATS[name][0]()
    mod.qconfig = None
    return mod


@every
def test_compiled_and_exported_it_gives_the_same(name):
    _, m, x = made(name)
    assert same(torch.compile(m, fullgraph=True, backend="aot_eager")(x), m(x))
    assert same(torch.export.export(m, (x,)).module()(x), m(x))


@pytest.mark.parametrize("name", ["Linear", "Conv2d", "LSTM", "GRUCell"])
def test_exported_with_any_batch(name):
    _, m, x = made(name)
    axis = 1 if name == "LSTM" else 0
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(m, (x,), dynamic_shapes=({axis: batch},))
    more = torch.cat([x, x + 1, x], axis)
    assert same(program.module()(more), m(more))


@every
def test_half_precision_goes_through_and_leaves_the_weights_alone(name):
    _, m, x = made(name)
    expected = tensors(m(x.bfloat16().float()))
    before = {key: value.dtype for key, value in m.state_dict().items()}
    found = tensors(m.bfloat16()(x.bfloat16()))
    assert {key: value.dtype for key, value in m.state_dict().items()} == before
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(found[:1], expected[:1], strict=True))


@every
def test_an_input_with_nan_gives_nan_everywhere(name):
    _, m, x = made(name)
    x.flatten()[3] = torch.nan
    assert tensors(m(x))[0].isnan().all()


@pytest.mark.parametrize("name", ["Linear", "LSTM", "GRU", "RNNCell"])
def test_float16_weights_are_those_of_the_float_module_rounded(name):
    mod, m, x = made(name, FLOAT16)
    rounded = copy.deepcopy(mod)
    for key, parameter in rounded.named_parameters():
        if "weight" in key:
            parameter.data = parameter.data.half().float()
    torch.testing.assert_close(tensors(m(x))[0], tensors(rounded(x))[0])
    assert {str(v.dtype) for k, v in m.state_dict().items() if "weight" in k} == {"torch.float16"}


def test_a_scale_for_each_channel_is_kept_and_loaded():
    mod, m, x = made("Linear", PER_CHANNEL)
    assert m.weight().q_per_channel_scales().shape == (30,)
    other = dynamic.Linear(20, 30)
    other.load_state_dict(m.state_dict())
    assert same(other(x), m(x))
    _, one, _ = made("Linear")
    error = [(layer(x) - mod(x)).norm() for layer in (m, one)]
    assert error[0] < error[1]


def test_a_layer_made_in_inference_mode_keeps_its_packed_weight():
    with torch.inference_mode():
        m = dynamic.Linear(3, 4)
        assert not any(buffer.is_inference() for buffer in m.buffers())
        m.set_weight_bias(m.weight(), torch.ones(4))
    assert not any(buffer.is_inference() for buffer in m.buffers())


def test_linear_relu_is_both_and_linear_refuses_to_drop_the_relu():
    pair = nn.Sequential(nn.Linear(5, 6), nn.ReLU())
    pair.qconfig = None
    m, x = dynamic.LinearReLU.from_float(pair), draw(9, 5)
    pair[0].qconfig = None
    assert same(m(x), dynamic.Linear.from_float(pair[0])(x).relu())
    assert m(x).min() == 0
    with pytest.raises(TypeError, match="takes Linear"):
        dynamic.Linear.from_float(pair)


def test_a_packed_sequence_is_each_sequence_alone_when_ranges_agree():
    # The largest and smallest input of each step are in each sequence, so that the scales agree.
    torch.manual_seed(0)
    mod = nn.GRU(2, 4, bidirectional=True)
    mod.qconfig = None
    m = dynamic.GRU.from_float(mod)
    sequence = draw(4, 2)
    packed = pack_padded_sequence(
        pad_sequence([sequence, sequence, sequence]), [4, 4, 4], enforce_sorted=False
    )
    out, h = m(packed)
    alone, h_alone = m(sequence.unsqueeze(1))
    assert same(pad_packed_sequence(out)[0], alone.expand(-1, 3, -1))
    assert same(h, h_alone.expand(-1, 3, -1))


def test_permuted_sequences_permute_states():
    torch.manual_seed(0)
    mod = nn.LSTM(3, 4)
    mod.qconfig = None
    m = dynamic.LSTM.from_float(mod)
    x, lengths, h = draw(5, 3, 3), torch.tensor([2, 5, 3]), (draw(1, 3, 4), draw(1, 3, 4, seed=1))
    out, states = m(pack_padded_sequence(x, lengths, enforce_sorted=False), h)
    order = torch.tensor([1, 2, 0])
    by_length = pack_padded_sequence(x[:, order], lengths[order])
    out_sorted, states_sorted = m(by_length, tuple(s[:, order] for s in h))
    assert same(out.data, out_sorted.data)
    assert same(tuple(s[:, order] for s in states), states_sorted)


def test_dropout_acts_between_layers_in_training_alone():
    mod = nn.LSTM(3, 4, 2, dropout=0.5)
    mod.qconfig = None
    m, x = dynamic.LSTM.from_float(mod), draw(5, 3, 3)
    assert same(m(x), m(x))
    m.train()
    assert not same(m(x), m(x))
    m.dropout = 1.0
    assert m(x)[0].abs().min() > 0


def test_conv_transpose_takes_an_output_size():
    m = dynamic.ConvTranspose2d(3, 4, 3, stride=2, padding=1)
    x = draw(1, 3, 5, 6)
    assert m(x, output_size=(10, 11)).shape[2:] == (10, 11)
    with pytest.raises(ValueError, match="from 9 to 10"):
        m(x, output_size=(11, 11))


def test_the_state_of_a_lstm_has_the_names_of_torchs():
    plain = {key for key in dynamic.LSTM(3, 4, 2).state_dict() if not key.endswith(("scale", "nt"))}
    plain = {key for key in plain if "zero_point" not in key}
    assert plain == set(nn.LSTM(3, 4, 2).state_dict())


def test_loading_says_what_is_missing_and_what_does_not_fit():
    m = dynamic.Linear(3, 4)
    state = m.state_dict()
    with pytest.raises(RuntimeError, match=r"Missing key.*weight_scale"):
        m.load_state_dict({k: v for k, v in state.items() if k != "weight_scale"})
    with pytest.raises(RuntimeError, match=r"that of this layer is \(4, 3\)"):
        m.load_state_dict({**state, "weight": state["weight"].t()})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*other"):
        m.load_state_dict({**state, "other": torch.zeros(1)})


@pytest.mark.parametrize("kind", [nn.Linear, nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_from_float_refuses_other_modules_and_missing_qconfigs(kind):
    cls = getattr(dynamic, kind.__name__)
    mod = kind(3, 4)
    with pytest.raises(ValueError, match="has no qconfig"):
        cls.from_float(mod)
    mod.qconfig = UNSIGNED
    with pytest.raises(ValueError, match=r"int8 \(qint8\) or float16, not torch.uint8"):
        cls.from_float(mod)
    with pytest.raises(TypeError, match=f"takes {kind.__name__}.*, not Identity"):
        cls.from_float(nn.Identity())


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: dynamic.Linear(3, 4, dtype=torch.uint8), ValueError, "not torch.uint8"),
        (lambda: dynamic.Linear(3, 4)(torch.zeros(2, 5)), ValueError, "in_features=3"),
        (lambda: dynamic.Linear(3, 4).set_weight_bias(torch.zeros(4, 3), None), TypeError, "QT"),
        (
            lambda: dynamic.Linear(3, 4).set_weight_bias(
                lowbit.quantize_per_channel(
                    torch.zeros(4, 3), torch.ones(3), torch.zeros(3), 1, "int8"
                ),
                None,
            ),
            ValueError,
            "axis 1",
        ),
        (
            lambda: dynamic.Linear(3, 4).set_weight_bias(
                lowbit.quantize_per_tensor(torch.zeros(4, 3), 1.0, 0, "uint8"), None
            ),
            TypeError,
            "is int8, not torch.uint8",
        ),
        (lambda: dynamic.Conv2d(3, 4, 3)(torch.zeros(3, 5, 5)), ValueError, "in_channels=3, h, w"),
        (lambda: dynamic.Conv2d(3, 4, 3, padding_mode="odd"), ValueError, "no padding_mode 'odd'"),
        (lambda: dynamic.Conv2d(3, 4, 3, groups=2), ValueError, "multiples of groups=2"),
        (
            lambda: dynamic.ConvTranspose1d(3, 4, 3, padding_mode="reflect"),
            ValueError,
            "'zeros' only",
        ),
        (lambda: dynamic.LSTM(3, 4, bias=False), ValueError, "bias=True"),
        (lambda: dynamic.LSTM(3, 4, dropout=2), ValueError, "probability"),
        (lambda: dynamic.LSTM(3, 4)(torch.zeros(0, 2, 3)), ValueError, "no steps"),
        (lambda: dynamic.LSTM(3, 4)(torch.zeros(5, 2, 4)), ValueError, "input_size=3"),
        (lambda: dynamic.GRU(3, 4)(torch.zeros(5, 2, 3), torch.zeros(1, 2, 5)), ValueError, "stat"),
        (lambda: dynamic.GRUCell(3, 4)(torch.zeros(2, 4)), ValueError, "input_size=3"),
        (lambda: dynamic.GRUCell(3, 4)(torch.zeros(2, 3), torch.zeros(1, 4)), ValueError, "hidden"),
        (lambda: dynamic.RNNCell(3, 4, nonlinearity="gelu"), ValueError, "known: tanh, relu"),
    ],
)
def test_errors_name_the_value_and_the_rule(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_printing_names_what_it_is():
    assert repr(dynamic.LSTM(3, 4, 2)) == "DynamicQuantizedLSTM(3, 4, num_layers=2)"
    assert repr(dynamic.Linear(3, 4)).startswith("DynamicQuantizedLinear(in_features=3, out_")
    conv = dynamic.Conv2d(3, 4, 3, padding=1, bias=False)
    assert "kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False" in repr(conv)
