"""``QTensor``: what it holds, what it refuses, and shapes that keep their meaning."""

import copy
import io
import pickle

import pytest
import torch

import lowbit
from lowbit.qtensor import QTensor


@pytest.fixture
def q():
    return lowbit.quantize_per_tensor(torch.randn(2, 3, 4), 0.05, 128, "quint8")


@pytest.fixture
def channels():
    """(2, 3, 4) with channels along axis 1."""
    scales, zero_points = torch.tensor([0.02, 0.05, 0.01]), torch.tensor([3, -7, 0])
    return lowbit.quantize_per_channel(torch.randn(2, 3, 4), scales, zero_points, 1, "qint8")


def test_a_tensor_has_the_facts_of_torchs_quantized_tensors(q):
    assert (q.q_scale(), q.q_zero_point(), q.qscheme()) == (0.05, 128, torch.per_tensor_affine)
    assert q.int_repr() is q.values
    assert (q.dtype, q.shape, q.device) == (torch.uint8, (2, 3, 4), torch.device("cpu"))
    assert (q.dim(), q.ndim, q.numel(), q.size(-1), len(q)) == (3, 3, 24, 4, 2)
    assert q.stride() == (12, 4, 1)
    assert q.stride(1) == 4
    assert q.element_size() == 1
    assert q.is_quantized
    torch.testing.assert_close(q.dequantize(), (q.values.float() - 128) * 0.05)


def test_channels_have_theirs(channels):
    assert channels.qscheme() == torch.per_channel_affine
    assert channels.q_per_channel_axis() == 1
    assert channels.q_per_channel_scales().dtype == torch.float64
    assert channels.q_per_channel_zero_points().dtype == torch.int64
    zero_points, scales = channels.zero_point[:, None], channels.scale[:, None]
    expected = ((channels.values - zero_points) * scales).float()
    torch.testing.assert_close(channels.dequantize(), expected)


def test_real_zero_points_have_their_scheme_and_dtype():
    args = (torch.rand(3).double() + 0.1, torch.rand(3).double(), 0, "uint8")
    q = lowbit.quantize_per_channel(torch.rand(3, 4), *args)
    assert q.qscheme() == torch.per_channel_affine_float_qparams
    assert q.scale.dtype == q.zero_point.dtype == torch.float32


@pytest.mark.parametrize("name", ["q_scale", "q_zero_point"])
def test_channels_have_no_single_scale(channels, name):
    with pytest.raises(ValueError, match="for each channel: q_per_channel_"):
        getattr(channels, name)()


@pytest.mark.parametrize(
    "name", ["q_per_channel_scales", "q_per_channel_zero_points", "q_per_channel_axis"]
)
def test_a_tensor_without_channels_has_no_vectors(q, name):
    with pytest.raises(ValueError, match=r"for the whole tensor|the whole tensor has one"):
        getattr(q, name)()


def test_one_element_tensors_are_scales_too():
    scale, zero_point = torch.tensor([0.5]), torch.tensor(3)
    q = lowbit.quantize_per_tensor(torch.ones(2), scale, zero_point, torch.int32)
    assert (q.q_scale(), q.q_zero_point()) == (0.5, 3)
    assert isinstance(q.q_zero_point(), int)


def test_real_values_are_refused():
    with pytest.raises(TypeError, match=r"holds uint8, int8 or int32, not torch\.float32"):
        QTensor(torch.zeros(2), 1.0, 0)


def test_vectors_that_do_not_fit_are_refused():
    values = torch.zeros(2, 3, dtype=torch.int8)
    with pytest.raises(ValueError, match="3 channels with scales of shape"):
        QTensor(values, torch.ones(2), torch.zeros(2), 1)
    with pytest.raises(IndexError, match="axis 2 is outside the 2 axes"):
        QTensor(values, torch.ones(2), torch.zeros(2), 2)


def test_dequantize_takes_real_tensors_as_they_are(q):
    x = torch.randn(3)
    assert lowbit.dequantize(x) is x
    assert torch.equal(lowbit.dequantize(q), q.dequantize())
    with pytest.raises(TypeError, match="without a scale"):
        lowbit.dequantize(q.values)


# Every change of shape gives the real numbers that the same change of the real tensor gives.
SHAPES = {
    "view": lambda x: x.view(2, 3, 2, 2),
    "view of a shape": lambda x: x.view((2, 3, -1)),
    "reshape": lambda x: x.reshape(2, 1, 3, 4),
    "flatten": lambda x: x.permute(1, 0, 2).flatten(1),
    "unflatten": lambda x: x.unflatten(2, (2, 2)),
    "squeeze": lambda x: x.unsqueeze(0).squeeze(0),
    "squeeze all": lambda x: x.unsqueeze(0).unsqueeze(2).squeeze(),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "permute": lambda x: x.permute(2, -2, 0),
    "permute a list": lambda x: x.permute([1, 2, 0]),
    "transpose": lambda x: x.transpose(-1, 1),
    "movedim": lambda x: x.movedim(1, -1),
    "T": lambda x: x[0].T,
    "t": lambda x: x[0].t(),
    "mT": lambda x: x.mT,
    "expand": lambda x: x[:, :, :1].expand(2, 3, 5),
    "expand in front": lambda x: x.expand(5, -1, -1, -1),
    "flip": lambda x: x.flip(2),
    "flip the channels": lambda x: x.flip(0, 1),
    "one row": lambda x: x[1],
    "one channel": lambda x: x[:, 1],
    "some channels": lambda x: x[:, 1:],
    "every second channel": lambda x: x[..., ::2, :],
    "chosen channels": lambda x: x[:, torch.tensor([2, 0])],
    "chosen channels of a list": lambda x: x[:, [2, 0, 2]],
    "from the end": lambda x: x[..., -1, 1:3],
    "new axes": lambda x: x[None, :, :, None],
    "an ellipsis": lambda x: x[0, ..., 2],
    "chosen rows": lambda x: x[torch.tensor([1, 1])],
    "select": lambda x: x.select(1, -1),
    "narrow": lambda x: x.narrow(1, -2, 2),
    "narrow rows": lambda x: x.narrow(0, 1, 1),
    "index_select": lambda x: x.index_select(1, torch.tensor([2, 1])),
    "index_select rows": lambda x: x.index_select(0, torch.tensor([1])),
    "split": lambda x: x.split([1, 2], 1)[1],
    "chunk": lambda x: x.chunk(2, -2)[0],
    "unbind": lambda x: x.unbind(1)[2],
    "iteration": lambda x: list(x)[1],
    "clone": lambda x: x.clone(),
    "contiguous": lambda x: x.transpose(0, 1).contiguous(),
    "detach": lambda x: x.detach(),
    "to": lambda x: x.to("cpu"),
    "cpu": lambda x: x.cpu(),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("which", ["q", "channels"])
def test_shapes_change_and_values_stay(name, which, request):
    q = request.getfixturevalue(which)
    found = SHAPES[name](q)
    assert isinstance(found, QTensor)
    assert torch.equal(found.dequantize(), SHAPES[name](q.dequantize()))
    assert found.dtype == q.dtype


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.flatten(),
        lambda x: x.reshape(6, 4),
        lambda x: x.view(2, 12),
    ],
)
def test_channels_that_would_be_torn_apart_are_refused(channels, change):
    with pytest.raises(ValueError, match=r"does not keep them together .*dequantize\(\) first"):
        change(channels)


def test_the_channels_are_not_mistaken_for_an_axis_of_the_same_size():
    args = (torch.tensor([0.1, 0.2, 0.4]), torch.zeros(3).long(), 1, "int8")
    q = lowbit.quantize_per_channel(torch.randn(3, 3, 3), *args)
    for shape, axis in (((3, 3, 3, 1), 1), ((1, 3, 3, 3), 2), ((3, 1, 3, 3), 2)):
        found = q.reshape(shape)
        assert found.axis == axis
        assert torch.equal(found.dequantize(), q.dequantize().reshape(shape))


@pytest.mark.parametrize(
    "index",
    [
        torch.ones(2, 3, dtype=torch.bool),
        (torch.tensor([0]), torch.tensor([1])),
        (slice(None), torch.tensor([[0, 1]])),
        (0, torch.tensor([1])),
        True,
    ],
    ids=str,
)
def test_indices_that_mix_axes_are_refused_of_channels(channels, index):
    with pytest.raises(ValueError, match="a per-channel QTensor takes"):
        channels[index]


def test_a_mask_picks_of_a_tensor_with_one_scale(q):
    assert torch.equal(q[q.values > 128].dequantize(), q.dequantize()[q.values > 128])


def test_a_single_channel_becomes_a_tensor_with_one_scale(channels):
    one = channels[:, 1:2].flatten()
    assert (one.axis, one.q_scale()) == (None, channels.scale[1].item())
    assert torch.equal(one.dequantize(), channels.dequantize()[:, 1].flatten())


def test_one_channel_with_a_real_zero_point_is_refused():
    args = (torch.rand(3) + 0.1, torch.rand(3), 0, "uint8")
    q = lowbit.quantize_per_channel(torch.rand(3, 4), *args)
    assert q[1:2].axis == 0
    with pytest.raises(ValueError, match="a slice of length 1"):
        q[1]


def test_channels_are_not_expanded():
    args = (torch.ones(1), torch.zeros(1).long(), 1, "int8")
    q = lowbit.quantize_per_channel(torch.rand(2, 1), *args)
    with pytest.raises(ValueError, match="cannot expand the axis of the channels"):
        q.expand(2, 3)


def test_memory_formats_are_kept(q):
    image = q.unsqueeze(0)
    last = image.contiguous(memory_format=torch.channels_last)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert image.to(memory_format=torch.channels_last).stride() == last.stride()
    assert not last.is_contiguous()
    assert last.clone().stride() == last.stride()


def test_clones_are_apart(channels):
    copied = channels.clone()
    copied.values.zero_()
    copied.scale.zero_()
    assert channels.values.any()
    assert channels.scale.all()


@pytest.mark.parametrize("change", [lambda q: q.to(torch.float32), lambda q: q.view(torch.int8)])
def test_another_dtype_is_refused(q, change):
    with pytest.raises(TypeError, match=r"int_repr\(\)"):
        change(q)


def test_equality_is_of_scale_and_zero_point_too(q, channels):
    assert q.equal(q.clone())
    assert channels.equal(channels.clone())
    assert not q.equal(QTensor(q.values, 0.06, 128))
    assert not q.equal(QTensor(q.values, 0.05, 127))
    assert not q.equal(QTensor(q.values.to(torch.int32), 0.05, 128))
    assert not q.equal(channels)
    assert not channels.equal(QTensor(channels.values, channels.scale * 2, channels.zero_point, 1))


def test_comparisons_are_of_real_numbers(q):
    other = QTensor(q.values, 0.1, 128)
    assert torch.equal(q == other, q.values == 128)
    assert torch.equal(q != other, q.values != 128)
    assert torch.equal(q < 0, q.values < 128)
    assert torch.equal(q >= torch.zeros(4), q.values >= 128)
    assert torch.equal(q <= other, q.values >= 128)
    assert torch.equal(q > other, q.values < 128)
    assert (q == "x") is False
    assert len({q, other}) == 2  # hashed by identity, as tensors are


def test_it_prints_integers_scale_and_zero_point():
    q = QTensor(torch.tensor([[1, 2], [3, 4]], dtype=torch.int8), 0.5, -1)
    assert repr(q) == (
        "QTensor([[1, 2],\n         [3, 4]], dtype=torch.int8, scale=0.5, zero_point=-1)"
    )
    rows = QTensor(q.values, torch.tensor([0.5, 0.25]), torch.tensor([0, 1]), 0)
    assert repr(rows).endswith("scale=[0.5, 0.25], zero_point=[0, 1], axis=0)")
    assert "..." in repr(QTensor(torch.zeros(5000, dtype=torch.uint8), 1.0, 0))


@pytest.mark.parametrize("which", ["q", "channels"])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_copies_and_pickles_are_equal(which, protocol, request):
    q = request.getfixturevalue(which)
    for other in (copy.deepcopy(q), copy.copy(q), pickle.loads(pickle.dumps(q, protocol))):
        assert other.equal(q)
    assert copy.deepcopy(q).values.data_ptr() != q.values.data_ptr()


@pytest.mark.parametrize("which", ["q", "channels"])
def test_it_is_saved_and_loaded_as_weights_only(which, request):
    q = request.getfixturevalue(which)
    file = io.BytesIO()
    torch.save({"weight": q, "shared": q.values}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert loaded["weight"].equal(q)
    assert loaded["weight"].values.data_ptr() == loaded["shared"].data_ptr()


@pytest.mark.skipif(
    not hasattr(torch, "_make_per_tensor_quantized_tensor"),
    reason="this torch has no quantized tensors",
)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
class TestTorchQuantized:
    """To and from torch's own quantized tensors."""

    @pytest.mark.parametrize("which", ["q", "channels"])
    def test_there_and_back(self, which, request):
        q = request.getfixturevalue(which)
        theirs = q.to_torch_quantized()
        assert theirs.is_quantized
        assert torch.equal(theirs.dequantize(), q.dequantize())
        assert QTensor.from_torch_quantized(theirs).equal(q)

    def test_real_zero_points(self):
        weight, scales, zero_points = torch.rand(3, 4), torch.rand(3) + 0.1, torch.rand(3)
        theirs = torch.quantize_per_channel(weight, scales, zero_points, 0, torch.quint8)
        q = QTensor.from_torch_quantized(theirs)
        assert q.qscheme() == theirs.qscheme()
        assert torch.equal(q.dequantize(), theirs.dequantize())

    def test_others_are_refused(self, q):
        for other in (torch.zeros(2), q):
            with pytest.raises(TypeError, match="not a quantized tensor of torch"):
                QTensor.from_torch_quantized(other)
        four = torch.quantize_per_channel(
            torch.rand(3, 4), torch.ones(3), torch.zeros(3), 0, torch.quint4x2
        )
        with pytest.raises(ValueError, match="several integers into a byte"):
            QTensor.from_torch_quantized(four)


def test_without_torchs_quantized_tensors_it_says_so(q, monkeypatch):
    monkeypatch.delattr(torch, "_make_per_tensor_quantized_tensor", raising=False)
    with pytest.raises(RuntimeError, match=r"has no quantized tensors; QTensor\.values"):
        q.to_torch_quantized()
