"""Layers against ``F.op(q(x), q(w))``: values, gradients, edges, and the life of a module."""

import copy
import inspect
import io
import itertools
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowbit.nn as qnn
from lowbit import quantizers

SIGN = {"input_quantization": "sign", "weight_quantization": "sign"}
CONVS = {1: (qnn.QConv1d, F.conv1d), 2: (qnn.QConv2d, F.conv2d), 3: (qnn.QConv3d, F.conv3d)}
TRANSPOSED = {
    1: (qnn.QConvTranspose1d, F.conv_transpose1d),
    2: (qnn.QConvTranspose2d, F.conv_transpose2d),
    3: (qnn.QConvTranspose3d, F.conv_transpose3d),
}
PARENTS = {
    getattr(qnn, name): getattr(nn, name[1:])
    for name in qnn.__all__
    if name.startswith("Q") and hasattr(nn, name[1:])
}


def signed(x):
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


def image(dims, channels=4, size=7, batch=2, dtype=torch.float32):
    x = torch.randn(batch, channels, *[size] * dims, dtype=dtype)
    x.flatten()[::7] = 0.0
    x.flatten()[1::7] = 1.0  # exactly the threshold
    return x


@pytest.mark.parametrize("layer", PARENTS, ids=lambda c: c.__name__)
def test_arguments_are_the_parents_plus_keyword_only_ones(layer):
    ours = inspect.signature(layer).parameters
    parents = inspect.signature(PARENTS[layer]).parameters
    assert list(ours)[: len(parents)] == list(parents)
    for name, parameter in parents.items():
        assert ours[name].default == parameter.default, name
        assert ours[name].kind == parameter.kind, name
    extra = {name: p for name, p in ours.items() if name not in parents}
    expected = {"input_quantization", "weight_quantization", "gradient_cancellation_threshold"}
    if not issubclass(layer, (qnn.QEmbedding, qnn.QEmbeddingBag)):
        expected.add("gradient_quantization")
    if issubclass(layer, (qnn.QConv1d, qnn.QConv2d, qnn.QConv3d)):
        expected.add("pad_value")
    assert set(extra) == expected
    assert all(p.kind == p.KEYWORD_ONLY and p.default is None for p in extra.values())
    assert issubclass(layer, PARENTS[layer])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_a_convolution_without_quantizers_is_torchs(dims, padding_mode, fused):
    ours = CONVS[dims][0](4, 6, 3, padding=1, padding_mode=padding_mode, bias=True)
    theirs = getattr(nn, f"Conv{dims}d")(4, 6, 3, padding=1, padding_mode=padding_mode)
    theirs.load_state_dict(ours.state_dict())
    ours.fused = fused
    x, y = image(dims).requires_grad_(), image(dims).requires_grad_()
    with torch.no_grad():
        y.copy_(x)
    a, b = ours(x), theirs(y)
    assert torch.equal(a, b)
    g = torch.randn_like(a)
    a.backward(g)
    b.backward(g)
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=0)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("pad_value", [None, -1, 0, 1])
@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 2, "stride": 2, "dilation": 2},
        {"kernel_size": 3, "padding": 1, "groups": 2, "bias": False},
        {"kernel_size": 1},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 4, "padding": "same"},
        {"kernel_size": 2, "padding": "valid", "stride": 3},
    ],
    ids=str,
)
def test_convolution_is_the_convolution_of_quantized_tensors(dims, pad_value, arguments, fused):
    layer = CONVS[dims][0](4, 6, **arguments, **SIGN, pad_value=pad_value)
    layer.fused = fused
    x = image(dims)
    s, w = signed(x), signed(layer.weight)
    s = F.pad(
        s, layer._reversed_padding_repeated_twice, value=-1 if pad_value is None else pad_value
    )
    expected = CONVS[dims][1](s, w, None, layer.stride, 0, layer.dilation, layer.groups)
    if layer.bias is not None:
        biased = expected + layer.bias.view(-1, *[1] * dims)
        torch.testing.assert_close(layer(x), biased, rtol=2e-7, atol=2e-7)
        layer.bias = None
    assert torch.equal(layer(x), expected)  # integers, so to the bit
    torch.testing.assert_close(layer(x[0]), layer(x)[0])  # unbatched


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("threshold", [None, 0, 0.5, 1.0])
@pytest.mark.parametrize("weight", ["sign", "ste_sign", "magnitude_aware_sign", None, "lsq"])
@pytest.mark.parametrize("inputs", ["sign", "approx_sign", "ste_sign", None, "lsq"])
def test_gradients_of_a_convolution_in_float64(inputs, weight, threshold, fused):
    layer = qnn.QConv2d(
        4,
        6,
        3,
        padding=1,
        stride=2,
        dtype=torch.float64,
        input_quantization=inputs,
        weight_quantization=weight,
        gradient_cancellation_threshold=threshold,
    )
    layer.fused = fused
    x = image(2, dtype=torch.float64).requires_grad_()
    with torch.no_grad():
        layer.weight.mul_(6)
        layer.weight.flatten()[::5] = 1.0
    layer(x)  # the first batch gives learned steps their values
    qx, qw = copy.deepcopy(layer.input_quantization), copy.deepcopy(layer.weight_quantization)
    a = x if qx is None else qx.value(x)
    w = layer.weight if qw is None else qw.value(layer.weight)
    a, w = a.detach().requires_grad_(), w.detach().requires_grad_()
    p = -1.0 if inputs in ("sign", "approx_sign", "ste_sign") else 0.0
    y = F.conv2d(F.pad(a, (1, 1, 1, 1), value=p), w, layer.bias, stride=2)
    g = torch.randn_like(y)
    y.backward(g)
    expected_x = a.grad * (1 if qx is None else qx.slope(x.detach()))
    if threshold is not None:
        expected_x = expected_x * (x.detach().abs() <= threshold)
    expected_w = w.grad * (1 if qw is None else qw.slope(layer.weight.detach()))
    bias_gradient = layer.bias.grad.clone()

    layer.zero_grad()
    out = layer(x)
    torch.testing.assert_close(out, y, rtol=1e-12, atol=1e-12)
    out.backward(g)
    torch.testing.assert_close(x.grad, expected_x.detach(), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(layer.weight.grad, expected_w.detach(), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(layer.bias.grad, bias_gradient, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (0, 5), (2, 0, 5)])
def test_linear_is_the_product_of_quantized_tensors(shape, fused):
    layer = qnn.QLinear(5, 7, **SIGN, gradient_cancellation_threshold=1.0)
    layer.fused = fused
    x = torch.randn(shape).requires_grad_()
    y = layer(x)
    torch.testing.assert_close(y, signed(x) @ signed(layer.weight).T + layer.bias)
    g = torch.randn_like(y)
    y.backward(g)
    torch.testing.assert_close(x.grad, (g @ signed(layer.weight)) * (x.abs() <= 1))
    weight_gradient = g.reshape(-1, 7).T @ signed(x).reshape(-1, 5)
    torch.testing.assert_close(layer.weight.grad, weight_gradient)
    torch.testing.assert_close(layer.bias.grad, g.reshape(-1, 7).sum(0))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 3},
        {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
        {"kernel_size": 2, "dilation": 2, "groups": 2, "bias": False},
    ],
    ids=str,
)
def test_transposed_convolution_is_that_of_quantized_tensors(dims, arguments):
    layer = TRANSPOSED[dims][0](4, 6, **arguments, **SIGN)
    x = image(dims, size=5)
    expected = TRANSPOSED[dims][1](
        signed(x),
        signed(layer.weight),
        layer.bias,
        layer.stride,
        layer.padding,
        layer.output_padding,
        layer.groups,
        layer.dilation,
    )
    assert torch.equal(layer(x), expected)


def test_transposed_convolution_takes_an_output_size():
    layer = qnn.QConvTranspose2d(4, 6, 3, stride=2, padding=1, **SIGN)
    assert layer(image(2, size=5), output_size=[10, 10]).shape == (2, 6, 10, 10)


def test_scales_of_a_transposed_convolution_are_per_output_channel():
    layer = qnn.QConvTranspose2d(4, 6, 3, weight_quantization="magnitude_aware_sign")
    magnitudes = layer._quantized_weight().abs()
    for channel in range(6):
        torch.testing.assert_close(
            magnitudes[:, channel], layer.weight[:, channel].abs().mean().expand(4, 3, 3)
        )


def test_embedding_returns_rows_of_the_quantized_table():
    layer = qnn.QEmbedding(10, 4, padding_idx=0, weight_quantization="sign")
    indices = torch.tensor([[1, 2], [2, 9]])
    assert torch.equal(layer(indices), signed(layer.weight)[indices])
    layer(indices).sum().backward()
    counts = torch.bincount(indices.flatten(), minlength=10)
    assert torch.equal(layer.weight.grad, counts[:, None].expand(10, 4).float())


@pytest.mark.parametrize("layer", [qnn.QEmbedding, qnn.QEmbeddingBag])
@pytest.mark.parametrize("weight", [*quantizers.names(), None])
def test_sparse_embedding_gradients(layer, weight):
    table, indices = torch.randn(10, 4), torch.tensor([[1, 2, 2], [7, 1, 9]])
    gradients = []
    for sparse in (False, True):
        torch.manual_seed(0)
        module = layer.from_pretrained(
            table.clone(), freeze=False, sparse=sparse, weight_quantization=weight
        )
        (module(indices) * torch.arange(4.0)).sum().backward()
        gradients.append(module.weight.grad)
    kept = quantizers.get(weight)
    if kept is None or (kept.is_local and not kept.slope_reads_input):
        assert gradients[1].is_sparse
        gradients[1] = gradients[1].to_dense()
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("layer", [qnn.QEmbedding, qnn.QEmbeddingBag])
def test_a_pretrained_table_is_quantized(layer):
    table = torch.randn(10, 4)
    module = layer.from_pretrained(table, weight_quantization={"name": "lsq", "per_channel": True})
    assert module.weight_quantization.step.shape == (10,)
    assert not module.weight.requires_grad
    assert torch.equal(module.weight, table)
    plain, theirs = layer.from_pretrained(table), PARENTS[layer].from_pretrained(table)
    indices = torch.tensor([[1, 2, 9]])
    assert torch.equal(plain(indices), theirs(indices))


def test_embedding_renormalises_the_latent_rows_in_use():
    layer = qnn.QEmbedding(3, 4, max_norm=1.0, weight_quantization="sign")
    with torch.no_grad():
        layer.weight.fill_(3.0)
    layer(torch.tensor([1]))
    torch.testing.assert_close(layer.weight.norm(dim=1), torch.tensor([6.0, 1.0, 6.0]))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bag_reduces_rows_of_the_quantized_table(mode):
    layer = qnn.QEmbeddingBag(10, 4, mode=mode, weight_quantization="sign")
    indices, offsets = torch.tensor([1, 2, 4, 5, 4]), torch.tensor([0, 3])
    expected = F.embedding_bag(indices, signed(layer.weight), offsets, mode=mode)
    assert torch.equal(layer(indices, offsets), expected)


@pytest.mark.parametrize("layer", [qnn.QEmbedding, qnn.QEmbeddingBag])
@pytest.mark.parametrize(
    "argument", [{"input_quantization": "sign"}, {"gradient_cancellation_threshold": 1.0}]
)
def test_indices_are_not_quantized(layer, argument):
    with pytest.raises(ValueError, match=f"{next(iter(argument))} must be None"):
        layer(10, 4, **argument)


def test_activation_cancels_and_quantizes():
    x = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.5], requires_grad=True)
    y = qnn.QActivation("sign", 1.0)(x)
    assert y.tolist() == [-1, -1, 1, 1, 1]
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


# --- the edges


def test_pad_value_zero_is_zero():
    layer = qnn.QConv2d(1, 1, 3, padding=1, bias=False, **SIGN, pad_value=0)
    assert layer.pad_value == 0
    with torch.no_grad():
        layer.weight.fill_(1.0)
    assert layer(torch.ones(1, 1, 1, 1)).item() == 1  # eight zeros around the pixel
    ones = qnn.QConv2d(1, 1, 3, padding=1, bias=False, **SIGN)
    ones.load_state_dict(layer.state_dict())
    assert ones(torch.ones(1, 1, 1, 1)).item() == 1 - 8


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [("sign", -1), ("approx_sign", -1), (None, 0), ({"name": "lsq", "bits": 2}, 0)],
)
def test_padding_adds_no_new_value_by_default(inputs, expected):
    assert qnn.QConv2d(1, 1, 3, input_quantization=inputs).pad_value == expected


@pytest.mark.parametrize("fused", [True, False])
def test_a_threshold_of_zero_is_zero_and_none_is_off(fused):
    x = torch.tensor([[-0.5, 0.0, -0.0, 0.5]], requires_grad=True)
    for threshold, expected in ((0, [0, 1, 1, 0]), (None, [1, 1, 1, 1])):
        layer = qnn.QLinear(4, 1, **SIGN, gradient_cancellation_threshold=threshold)
        layer.fused = fused
        x.grad = None
        layer(x).sum().backward()
        assert x.grad.ne(0).int().tolist() == [expected]


@pytest.mark.parametrize("value", [-1.0, float("nan"), "1", True])
def test_bad_thresholds_are_refused(value):
    with pytest.raises(ValueError, match="gradient_cancellation_threshold"):
        qnn.QLinear(2, 2, gradient_cancellation_threshold=value)


def test_bad_pad_values_are_refused():
    with pytest.raises(ValueError, match=r"pad_value is -1, 0 or 1 .*got 0\.5"):
        qnn.QConv2d(1, 1, 3, pad_value=0.5)
    with pytest.raises(ValueError, match="padding_mode='reflect'"):
        qnn.QConv2d(1, 1, 3, pad_value=-1, padding_mode="reflect")


def test_lists_work_wherever_tuples_do():
    x = image(2)
    ours = qnn.QConv2d(4, 6, [3, 3], stride=[1, 2], padding=[1, 0], dilation=[1, 1], **SIGN)
    same = qnn.QConv2d(4, 6, (3, 3), stride=(1, 2), padding=(1, 0), dilation=(1, 1), **SIGN)
    same.load_state_dict(ours.state_dict())
    assert torch.equal(ours(x), same(x))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_negative_zero_counts_as_positive(layer, fused):
    plus = torch.zeros(1, 4, 3, 3) if layer == "conv" else torch.zeros(1, 4)
    make = (
        (lambda: qnn.QConv2d(4, 2, 3, **SIGN))
        if layer == "conv"
        else lambda: qnn.QLinear(4, 2, **SIGN)
    )
    module = make()
    module.fused = fused
    assert torch.equal(module(plus), module(-plus))
    with torch.no_grad():
        module.weight.fill_(0.0)
        positive = module(plus)
        module.weight.fill_(-0.0)
    assert torch.equal(module(plus), positive)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("where", ["input", "weight"])
def test_nan_comes_out(where, fused):
    layer = qnn.QConv2d(2, 3, 3, padding=1, **SIGN)
    layer.fused = fused
    x = torch.randn(2, 2, 5, 5)
    with torch.no_grad():
        (x if where == "input" else layer.weight).flatten()[0] = float("nan")
    y = layer(x)
    assert y.isnan().any()
    assert not y.isnan().all()  # only where it reaches


# --- the life of a module


def each_layer():
    for dims, threshold in itertools.product((1, 2, 3), (None, 1.0)):
        yield (
            CONVS[dims][0](4, 6, 3, padding=1, **SIGN, gradient_cancellation_threshold=threshold),
            image(dims),
        )
    yield qnn.QConvTranspose2d(4, 6, 3, **SIGN, gradient_cancellation_threshold=1.0), image(2)
    yield qnn.QLinear(7, 6, **SIGN, gradient_cancellation_threshold=1.0), torch.randn(3, 7)
    yield qnn.QEmbedding(9, 6, weight_quantization="sign"), torch.tensor([1, 2, 8])
    yield qnn.QEmbeddingBag(9, 6, weight_quantization="sign"), torch.tensor([[1, 2, 8]])
    yield qnn.QActivation("approx_sign", 1.0), torch.randn(3, 7)


@pytest.mark.parametrize(("layer", "x"), list(each_layer()), ids=lambda v: type(v).__name__)
class TestLife:
    def test_deep_copy_pickle_and_state_dict(self, layer, x):
        y = layer(x)
        assert torch.equal(copy.deepcopy(layer)(x), y)
        assert torch.equal(pickle.loads(pickle.dumps(layer))(x), y)
        file = io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        other = copy.deepcopy(layer)
        for parameter in other.parameters():
            torch.nn.init.normal_(parameter)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(other(x), y)

    def test_compile_without_a_graph_break(self, layer, x):
        compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
        y = layer(x)
        z = compiled(x)
        torch.testing.assert_close(z, y)
        if y.requires_grad:
            layer.zero_grad()
            y.sum().backward()
            z.sum().backward()
            torch.testing.assert_close(compiled._orig_mod.weight.grad, layer.weight.grad)

    def test_export(self, layer, x):
        exported = torch.export.export(layer.eval(), (x,))
        torch.testing.assert_close(exported.module()(x), layer(x))

    def test_autocast(self, layer, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
        torch.testing.assert_close(y.float(), layer(x), rtol=2e-2, atol=0.3)
        if y.requires_grad:
            y.float().sum().backward()
            assert layer.weight.grad.isfinite().all()
            assert layer.weight.grad.dtype == torch.float32

    def test_double(self, layer, x):
        layer = copy.deepcopy(layer).double()
        x = x.double() if x.is_floating_point() else x
        assert layer(x).dtype == torch.float64

    def test_repr_names_the_quantizers(self, layer, x):
        assert "Sign" in repr(layer)


def test_functional_calls_and_transforms():
    layer = qnn.QConv2d(2, 3, 3, padding=1, **SIGN, gradient_cancellation_threshold=1.0)
    x = torch.randn(4, 2, 5, 5)
    parameters = {k: v.detach() for k, v in layer.named_parameters()}

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, (x[None],)).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    for i in range(4):
        layer.zero_grad()
        layer(x[i : i + 1]).square().sum().backward()
        torch.testing.assert_close(per_sample["weight"][i], layer.weight.grad)


@pytest.mark.parametrize("inputs", ["sign", "approx_sign"])
@pytest.mark.parametrize("make", [qnn.QLinear, qnn.QConv2d])
def test_second_derivatives_of_the_fast_path_are_the_specifications(make, inputs):
    arguments = {"input_quantization": inputs, "weight_quantization": "approx_sign"}
    layer = (
        make(4, 3, dtype=torch.float64, **arguments)
        if make is qnn.QLinear
        else make(4, 3, 3, padding=1, dtype=torch.float64, **arguments)
    )
    shape = (5, 4) if make is qnn.QLinear else (2, 4, 5, 5)
    x = (torch.randn(shape, dtype=torch.float64) / 2).requires_grad_()

    def penalty(fused):
        layer.fused = fused
        (gradient,) = torch.autograd.grad(layer(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), [x, layer.weight])

    for fast, slow in zip(penalty(True), penalty(False), strict=True):
        torch.testing.assert_close(fast, slow)


def test_the_fast_path_keeps_no_more_for_backward_than_the_float_layer():
    def kept(layer, x):
        own = {p.data_ptr() for p in layer.parameters()}
        found = {}

        def pack(t):
            if t.data_ptr() not in own:
                found[t.data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            layer(x)
        return sum(found.values())

    x = torch.randn(2, 4, 8, 8, requires_grad=True) * 1
    quantized = qnn.QConv2d(4, 4, 3, padding=1, **SIGN, gradient_cancellation_threshold=1.0)
    assert kept(quantized, x) == kept(nn.Conv2d(4, 4, 3, padding=1), x)


def test_hooks_on_a_quantizer_run_on_the_fast_path_too():
    layer = qnn.QLinear(4, 2, **SIGN)
    seen = []
    layer.input_quantization.register_forward_hook(lambda m, a, out: seen.append(out))
    layer(torch.randn(3, 4))
    assert len(seen) == 1


def test_each_layer_has_its_own_quantizer():
    shared = quantizers.get({"name": "lsq", "bits": 2})
    a = qnn.QLinear(2, 2, input_quantization=shared)
    b = qnn.QLinear(2, 2, input_quantization=shared)
    assert a.input_quantization is not b.input_quantization
    assert a.input_quantization.step is not b.input_quantization.step


def test_quantizer_parameters_follow_the_layers_dtype_and_device():
    layer = qnn.QLinear(2, 2, dtype=torch.float64, device="meta", weight_quantization="lsq")
    assert layer.weight_quantization.step.dtype == torch.float64
    assert layer.weight_quantization.step.is_meta


def test_channels_last_stays_and_strided_input_works():
    layer = qnn.QConv2d(4, 6, 3, padding=1, **SIGN).to(memory_format=torch.channels_last)
    x = image(2).to(memory_format=torch.channels_last)
    y = layer(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, layer(x.contiguous()))
    strided = torch.randn(2, 4, 14, 14)[:, :, ::2, ::2]
    torch.testing.assert_close(layer(strided), layer(strided.contiguous()))


def test_latent_layers_are_those_with_a_weight_quantizer():
    model = nn.Sequential(qnn.QLinear(2, 2), qnn.QLinear(2, 2, **SIGN), nn.Linear(2, 2))
    assert [name for name, _ in qnn.latent_layers(model)] == ["1"]


def test_scratch_memory_is_each_threads_own():
    from concurrent.futures import ThreadPoolExecutor

    layer = qnn.QConv2d(8, 8, 3, padding=1, **SIGN, gradient_cancellation_threshold=1.0)
    images = [torch.randn(4, 8, 32, 32) for _ in range(16)]

    def work(x):
        x = x.clone().requires_grad_()
        y = layer(x)
        return y.detach(), *torch.autograd.grad(y.square().sum(), [x, layer.weight])

    expected = [work(x) for x in images]
    with ThreadPoolExecutor(4) as pool:
        for got, wanted in zip(pool.map(work, images), expected, strict=True):
            for a, b in zip(got, wanted, strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided", "5d"])
def test_scratch_tensors_have_the_layout_asked_for(layout):
    from lowbit.nn._scratch import scratch

    like = {
        "contiguous": torch.empty(2, 3, 4, 5),
        "channels_last": torch.empty(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "strided": torch.empty(2, 3, 8, 5)[:, :, ::2],
        "5d": torch.empty(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d),
    }[layout]
    got = scratch("test", like)
    assert got.shape == like.shape
    assert got.dtype == like.dtype
    assert got.stride() == torch.empty_like(like).stride()
    scratch("test", torch.empty(10_000)).fill_(1.0)  # grows
    assert scratch("other", like).data_ptr() != scratch("test", like).data_ptr()


# --- what calls after one another, or beside one another, must not disturb


def test_training_after_evaluation_in_inference_mode():
    layer = qnn.QLinear(40, 40, **SIGN)
    with torch.inference_mode():
        layer(torch.randn(2000, 40))  # larger than what any test before has used
    layer(torch.randn(2000, 40)).sum().backward()
    assert layer.weight.grad.isfinite().all()


def test_a_frozen_weight_has_no_gradient_where_the_bias_has():
    layer = qnn.QConv1d(4, 8, 3, padding=1, groups=2, **SIGN, pad_value=1)
    layer.weight.requires_grad_(False)
    layer(torch.randn(2, 4, 7)).sum().backward()
    assert layer.weight.grad is None
    assert torch.equal(layer.bias.grad, torch.full((8,), 14.0))


def test_padding_small_real_inputs_keeps_their_digits():
    layer = qnn.QConv2d(4, 3, 3, padding=1, bias=False, weight_quantization="sign", pad_value=-1)
    x = torch.randn(1, 4, 8, 8) * 1e-5
    fast = layer(x)
    layer.fused = False
    torch.testing.assert_close(fast[..., 1:-1, 1:-1], layer(x)[..., 1:-1, 1:-1], atol=0, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_input_of_another_dtype_is_refused_as_by_torch(dtype):
    for layer in (qnn.QLinear(4, 4, **SIGN), nn.Linear(4, 4)):
        with pytest.raises(RuntimeError, match="dtype"):
            layer(torch.randn(2, 4, dtype=dtype))


def test_meta_tensors_pass_through():
    layer = qnn.QConv2d(4, 6, 3, padding=1, device="meta", **SIGN)
    assert layer(torch.empty(2, 4, 5, 5, device="meta")).shape == (2, 6, 5, 5)


def test_backward_hooks_on_a_quantizer_run():
    layer = qnn.QLinear(4, 2, **SIGN)
    seen = []
    layer.input_quantization.register_full_backward_hook(lambda *a: seen.append(a))
    layer(torch.randn(3, 4, requires_grad=True)).sum().backward()
    assert len(seen) == 1


def test_a_parametrized_weight_is_evaluated_once():
    calls = []

    class Doubled(nn.Module):
        def forward(self, weight):
            calls.append(weight)
            return 2 * weight

    layer = qnn.QLinear(4, 2, **SIGN)
    nn.utils.parametrize.register_parametrization(layer, "weight", Doubled())
    calls.clear()
    layer(torch.randn(3, 4)).sum().backward()
    assert len(calls) == 1


def test_backward_belongs_to_the_mode_that_forward_ran_in():
    x = torch.rand(3, 4, requires_grad=True) - 0.5

    def gradients(between):
        layer = qnn.QLinear(4, 2, bias=False, input_quantization="progressive_sign")
        torch.nn.init.ones_(layer.weight)
        y = layer(x)
        between(layer)
        (gradient,) = torch.autograd.grad(y.square().sum(), layer.weight)
        return gradient, layer

    expected, _ = gradients(lambda layer: None)
    got, layer = gradients(lambda layer: layer.eval())
    assert torch.equal(got, expected)
    assert not layer.input_quantization.training


# --- XNOR-Net's scale by the magnitude of the inputs


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("arguments", [{}, {"padding": 1, "stride": 2}, {"dilation": 2}], ids=str)
def test_act_scale_multiplies_by_the_mean_magnitude_under_each_window(dims, arguments):
    weight = {"name": "xnor", "act_scale": True}
    layer = CONVS[dims][0](
        4, 6, 3, **arguments, input_quantization="sign", weight_quantization=weight
    )
    plain = copy.deepcopy(layer)
    plain.weight_quantization = quantizers.get("xnor")
    plain.bias = None
    x = image(dims)
    magnitude = x.abs().mean(1, keepdim=True)
    window = torch.full((1, 1, *[3] * dims), 1 / 3**dims)
    scale = CONVS[dims][1](magnitude, window, **arguments)
    expected = plain(x) * scale + layer.bias.view(-1, *[1] * dims)
    torch.testing.assert_close(layer(x), expected)


def test_act_scale_of_a_linear_layer_is_the_rows_mean_magnitude():
    layer = qnn.QLinear(
        5, 3, input_quantization="sign", weight_quantization={"name": "xnor", "act_scale": True}
    )
    x = torch.randn(2, 4, 5)
    product = signed(x) @ layer.weight_quantization(layer.weight).T
    torch.testing.assert_close(layer(x), product * x.abs().mean(-1, keepdim=True) + layer.bias)


def test_act_scale_is_refused_where_it_means_nothing():
    with pytest.raises(ValueError, match="act_scale is for QLinear and QConv"):
        qnn.QEmbedding(4, 4, weight_quantization={"name": "xnor", "act_scale": True})


# --- convolutions of signs in int8


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 5, "padding": 2, "stride": 2},
        {"kernel_size": 3, "padding": 3, "dilation": 2, "bias": False},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": (1, 3), "padding": "same"},
    ],
    ids=str,
)
def test_large_convolutions_of_signs_are_exact(arguments, pad_value, memory_format):
    layer = qnn.QConv2d(33, 18, **arguments, **SIGN, pad_value=pad_value)
    x = image(2, channels=33, size=16, batch=8).to(memory_format=memory_format)
    fast = layer(x)
    layer.fused = False
    slow = layer(x)
    bias = 0 if layer.bias is None else layer.bias.view(-1, 1, 1)
    assert torch.equal((fast - bias).round(), (slow - bias).round())
    torch.testing.assert_close(fast, slow, rtol=3e-7, atol=3e-6)
    assert fast.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("dims", [1, 3])
def test_large_convolutions_of_signs_in_other_dimensions_are_exact(dims):
    layer = CONVS[dims][0](32, 16, 3, padding=1, bias=False, **SIGN)
    x = image(dims, channels=32, size=512 if dims == 1 else 8)
    fast = layer(x)
    layer.fused = False
    assert torch.equal(fast, layer(x))


def test_nan_and_infinity_reach_large_convolutions():
    layer = qnn.QConv2d(32, 16, 3, padding=1, bias=False, **SIGN)
    x = torch.randn(4, 32, 16, 16)
    x[0, 0, 0, 0], x[0, 1, 0, 0] = float("inf"), float("-inf")
    x[1, 0, 5, 5] = float("nan")
    fast = layer(x)
    layer.fused = False
    torch.testing.assert_close(fast, layer(x), rtol=0, atol=0, equal_nan=True)
    assert fast[1].isnan().any()
    assert not fast[0].isnan().any()


def test_int8_is_used_where_the_processor_has_it():
    from lowbit.nn import _int8

    if not (torch.cpu._is_vnni_supported() and hasattr(torch.ops.onednn, "qconv_pointwise")):
        pytest.skip("this processor or this torch has no fast int8 convolutions")
    assert _int8.available()
    assert _int8.worthwhile(torch.empty(8, 32, 8, 8), torch.empty(8, 32, 1, 1), 1, (8, 8))
    assert not _int8.worthwhile(torch.empty(1, 32, 8, 8), torch.empty(8, 32, 1, 1), 1, (8, 8))


@pytest.mark.parametrize("weight", ["magnitude_aware_sign", "bireal_weight", "dorefa_weight"])
@pytest.mark.parametrize("channels", [4, 32])
@pytest.mark.parametrize("pad_value", [-1, 0])
def test_scaled_signs_of_weights(weight, channels, pad_value):
    layer = qnn.QConv2d(
        channels,
        16,
        3,
        padding=1,
        input_quantization="sign",
        weight_quantization=weight,
        gradient_cancellation_threshold=1.0,
        pad_value=pad_value,
    )
    x = image(2, channels=channels, size=12, batch=4)
    found = []
    for fused in (True, False):
        layer.fused = fused
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        g = torch.sin(torch.arange(y.numel()).float()).view_as(y)
        found.append((y, *torch.autograd.grad(y, [leaf, layer.weight, layer.bias], g)))
    for fast, slow in zip(*found, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-4)
    exact = F.conv2d(
        F.pad(signed(x).double(), [1] * 4, value=pad_value),
        layer.weight_quantization.value(layer.weight).double(),
        layer.bias.double(),
    )
    torch.testing.assert_close(found[0][0].double(), exact, rtol=1e-6, atol=1e-6)
