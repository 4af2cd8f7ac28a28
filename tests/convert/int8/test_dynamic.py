"""quantize_dynamic: which layers it takes, and that models with them keep working."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import rnn

import lowbit
from lowbit import qconfig as q
from lowbit.nn import QLinear
from lowbit.nn.quantized import Embedding, EmbeddingBag, dynamic
from tests.convert.int8._int8 import images, sqnr

BOUND = 28.0


def mlp() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5)).eval()


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(6))


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for part in value for t in tensors(part)] if isinstance(value, tuple) else []


def check(model: nn.Module, *inputs: Any, bound: float = BOUND, **arguments: Any) -> nn.Module:
    """Outputs, shapes and kinds as the float model's."""
    model.eval()
    quantized = lowbit.quantize_dynamic(model, **arguments)
    wanted, found = tensors(model(*inputs)), tensors(quantized(*inputs))
    assert len(wanted) == len(found)
    for a, b in zip(wanted, found, strict=True):
        assert a.shape == b.shape
        if a.is_floating_point():
            assert b.dtype == a.dtype
            assert sqnr(a, b) > bound
        else:
            assert torch.equal(a, b)
    return quantized


RECURRENT: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "LSTM": (lambda: nn.LSTM(20, 8), _noise(6, 4, 20)),
    "LSTM, two layers, both ways": (
        lambda: nn.LSTM(20, 8, 2, bidirectional=True),
        _noise(6, 4, 20),
    ),
    "LSTM, batch first, dropout": (
        lambda: nn.LSTM(20, 8, 2, batch_first=True, dropout=0.3),
        _noise(6, 4, 20),
    ),
    "LSTM without a batch": (lambda: nn.LSTM(20, 8), _noise(6, 20)),
    "GRU": (lambda: nn.GRU(20, 8, 2, bidirectional=True), _noise(6, 4, 20)),
    "LSTMCell": (lambda: nn.LSTMCell(20, 8), _noise(6, 20)),
    "GRUCell": (lambda: nn.GRUCell(20, 8), _noise(6, 20)),
    "RNNCell": (lambda: nn.RNNCell(20, 8), _noise(6, 20)),
    "RNNCell, relu": (lambda: nn.RNNCell(20, 8, nonlinearity="relu"), _noise(6, 20)),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers(name: str) -> None:
    make, x = RECURRENT[name]
    quantized = check(make(), x)
    assert type(quantized).__module__.startswith("lowbit.nn.quantized.dynamic")


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_packed_sequences(kind: type[nn.Module]) -> None:
    lengths = [6, 5, 3, 1]
    check(kind(20, 8, 2, bidirectional=True), rnn.pack_padded_sequence(_noise(6, 4, 20), lengths))
    shuffled = rnn.pack_padded_sequence(
        _noise(3, 5, 20), [2, 5, 3], batch_first=True, enforce_sorted=False
    )
    check(kind(20, 8, batch_first=True), shuffled)


def test_an_initial_state() -> None:
    state = (_noise(1, 4, 8), _noise(1, 4, 8))
    check(nn.LSTM(20, 8), _noise(6, 4, 20), state)
    check(nn.GRU(20, 8), _noise(6, 4, 20), state[0])


@pytest.mark.parametrize("arguments", [{"proj_size": 4}, {"bias": False}])
def test_recurrent_layers_without_an_int8_form_stay(arguments: dict[str, Any]) -> None:
    assert type(check(nn.LSTM(20, 8, **arguments), _noise(6, 4, 20))) is nn.LSTM


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_without_biases_stay(kind: type[nn.Module]) -> None:
    quantized = lowbit.quantize_dynamic(nn.ModuleList([mlp(), kind(10, 8, bias=False)]))
    assert is_int8(quantized[0][0])
    assert type(quantized[1]) is kind


def is_int8(layer: nn.Module) -> bool:
    return isinstance(layer, dynamic.Linear)


@pytest.mark.parametrize(
    ("spec", "taken"),
    [
        (None, (True, True)),
        ({nn.Linear}, (True, True)),
        ({nn.LSTM}, (False, False)),
        ({"0"}, (True, False)),
        ({"0": q.per_channel_dynamic_qconfig}, (True, False)),
        ({nn.Linear: q.default_dynamic_qconfig}, (True, True)),
    ],
)
def test_which_layers_are_taken(spec: Any, taken: tuple[bool, bool]) -> None:
    quantized = check(mlp(), _noise(16, 20), qconfig_spec=spec)
    assert (is_int8(quantized[0]), is_int8(quantized[2])) == taken


def test_a_name_takes_what_is_below_it() -> None:
    quantized = check(nn.Sequential(mlp(), nn.Linear(5, 5)), _noise(16, 20), qconfig_spec={"0"})
    assert is_int8(quantized[0][2])
    assert type(quantized[1]) is nn.Linear


def test_one_weight_scale_for_each_channel() -> None:
    spec = {nn.Linear: q.per_channel_dynamic_qconfig}
    quantized = check(mlp(), _noise(16, 20), qconfig_spec=spec)
    assert any(v.shape == (32,) for k, v in quantized.state_dict().items() if "scale" in k)


@pytest.mark.parametrize("dtype", [torch.qint8, torch.int8, "int8"])
def test_names_of_int8(dtype: Any) -> None:
    x = _noise(16, 20)
    found = lowbit.quantize_dynamic(mlp(), dtype=dtype)(x)
    assert torch.equal(found, lowbit.quantize_dynamic(mlp())(x))


@pytest.mark.parametrize("make", [mlp, lambda: nn.LSTM(20, 8)])
def test_float16_weights(make: Callable[[], nn.Module]) -> None:
    check(make(), _noise(6, 4, 20), dtype=torch.float16, bound=65)


def test_embeddings_on_request() -> None:
    words = torch.randint(0, 10, (4, 6))
    model = nn.Sequential(nn.Embedding(10, 16), nn.Linear(16, 3))
    assert type(check(model, words)[0]) is nn.Embedding
    assert type(check(model, words, dtype=torch.quint8)[0]) is Embedding
    check(model, words, qconfig_spec={nn.Embedding: q.float_qparams_weight_only_qconfig})
    spec = {
        nn.Embedding: q.float_qparams_weight_only_qconfig_4bit,
        nn.Linear: q.default_dynamic_qconfig,
    }
    check(model, words, qconfig_spec=spec, bound=18)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize(("dtype", "bound"), [("quint8", 40), ("quint4x2", 17)])
def test_bags(mode: str, dtype: str, bound: float) -> None:
    bag = nn.Sequential(nn.EmbeddingBag(10, 16, mode=mode))
    words = torch.randint(0, 10, (4, 6))
    spec = {nn.EmbeddingBag}
    quantized = check(bag, words, qconfig_spec=spec, dtype=dtype, bound=bound)
    assert type(quantized[0]) is EmbeddingBag


def test_convolutions_on_request() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 4, 3))
    assert type(check(model, images())[0]) is nn.Conv2d
    quantized = check(model, images(), qconfig_spec={nn.Conv2d, nn.ConvTranspose2d})
    assert isinstance(quantized[0], dynamic.Conv2d)
    assert isinstance(quantized[2], dynamic.ConvTranspose2d)


def test_a_copy_or_in_place() -> None:
    model = mlp().train()
    copied = lowbit.quantize_dynamic(model)
    assert type(model[0]) is nn.Linear
    assert model.training
    assert not copied.training
    assert lowbit.quantize_dynamic(model, inplace=True) is model
    assert is_int8(model[0])


def test_one_layer_in_two_places_stays_one() -> None:
    layer = nn.Linear(8, 8)
    quantized = check(nn.Sequential(layer, nn.ReLU(), layer), _noise(4, 8))
    assert quantized[0] is quantized[2]


def test_layers_that_would_lose_something_stay() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    hooked = nn.Linear(8, 8)
    hooked.register_forward_hook(lambda module, inputs, output: output + 1)
    normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
    binary = QLinear(8, 8, input_quantization="sign", weight_quantization="sign")
    model = nn.Sequential(hooked, normed, Doubled(8, 8), binary, nn.Linear(8, 8))
    quantized = lowbit.quantize_dynamic(model.eval())
    assert [is_int8(layer) for layer in quantized] == [False] * 4 + [True]
    x = _noise(4, 8)
    assert torch.equal(quantized[:4](x), model[:4](x))


def test_encoders_of_torch_call_their_int8_layers() -> None:
    """In inference they would hand float weights to one kernel, and nested tensors with a mask."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(20, 2, 32, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    x, mask = _noise(3, 5, 20), torch.tensor([[False, False, False, True, True]] * 3)
    with torch.no_grad():
        quantized = check(encoder, x)
        wanted = encoder(x, src_key_padding_mask=mask)[:, :3]
        found = quantized(x, src_key_padding_mask=mask)[:, :3]
    assert is_int8(quantized.layers[0].linear1)
    assert sqnr(wanted, found) > BOUND
    assert quantized.train()(x).shape == x.shape
    check(nn.Transformer(20, 2, 1, 1, 32, batch_first=True), x, x)


def test_attention_keeps_its_projection() -> None:
    attention = nn.MultiheadAttention(20, 2, batch_first=True)
    check(attention, *[_noise(3, 5, 20)] * 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"qconfig_spec": {"nope"}}, "nope"),
        ({"qconfig_spec": {nn.ReLU}}, "ReLU"),
        ({"dtype": torch.int16}, "int16"),
    ],
)
def test_errors(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lowbit.quantize_dynamic(mlp(), **arguments)


def test_shapes_of_inputs() -> None:
    quantized = lowbit.quantize_dynamic(mlp())
    assert quantized(_noise(0, 20)).shape == (0, 5)
    x = _noise(16, 20)
    assert quantized(x[0]).shape == (5,)
    assert torch.equal(quantized(x.t().contiguous().t()), quantized(x))


def test_copies_files_and_compilers() -> None:
    x = _noise(6, 4, 20)
    quantized = lowbit.quantize_dynamic(nn.Sequential(nn.LSTM(20, 8)))
    wanted = quantized(x)[0]
    for other in (copy.deepcopy(quantized), pickle.loads(pickle.dumps(quantized))):
        assert torch.equal(other(x)[0], wanted)
    fresh = lowbit.quantize_dynamic(nn.Sequential(nn.LSTM(20, 8)))
    fresh.load_state_dict(quantized.state_dict())
    assert torch.equal(fresh(x)[0], wanted)
    sizes = ({0: torch.export.Dim("batch")},)
    linear = lowbit.quantize_dynamic(mlp())
    exported = torch.export.export(linear, (x[0],), dynamic_shapes=sizes).module()
    assert torch.allclose(exported(x[0, :3]), linear(x[0, :3]), atol=1e-6)


def test_a_second_call_finds_nothing_more() -> None:
    once = lowbit.quantize_dynamic(mlp())
    x = _noise(16, 20)
    assert torch.equal(lowbit.quantize_dynamic(once)(x), once(x))
