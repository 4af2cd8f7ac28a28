"""A layer with its batch norm: as trained, as converted, and its float and int8 rivals."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import torch
from bench_training import float_twin
from torch import Tensor, nn

import lowbit
from lowbit.nn import QConv2d, QLinear

SIGNS = {"input_quantization": "sign", "weight_quantization": "sign"}


def conv_norm(
    channels: int, out: int, kernel: int = 3, stride: int = 1, **quantization: Any
) -> nn.Sequential:
    """Quantized convolution (signs unless said otherwise) and batch norm, in eval mode."""
    torch.manual_seed(0)
    spec = quantization or SIGNS
    conv = QConv2d(channels, out, kernel, stride, kernel // 2, bias=False, **spec)
    norm = nn.BatchNorm2d(out)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    # As large as the sums, so that what comes out has both signs.
    spread = float(channels * kernel**2) ** 0.5
    nn.init.normal_(norm.running_mean, std=0.3 * spread)
    nn.init.constant_(norm.running_var, spread**2)
    return nn.Sequential(conv, norm).eval()


def linear(features: int, out: int) -> nn.Sequential:
    """A linear layer of signs, with a bias."""
    torch.manual_seed(0)
    return nn.Sequential(QLinear(features, out, **SIGNS)).eval()


def packed(model: nn.Sequential, x: Tensor) -> nn.Module:
    """The one packed module that a layer and its norm become; its answers are checked."""
    converted = lowbit.convert(model, to="packed", keep_slower=True).model
    found = [m for m in converted.modules() if type(m).__name__.startswith("Packed")]
    if len(found) != 1:
        raise AssertionError(f"one packed layer is expected of {model}; got {converted}")
    with torch.inference_mode():
        expected, ours = model(x), found[0](x)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-4)
    if ours.stride() != expected.stride():
        raise AssertionError(
            f"an input with strides {x.stride()} gives {expected.stride()} from the trained layer "
            f"and {ours.stride()} from the packed one"
        )
    return found[0]


def float_layer(model: nn.Sequential, layout: torch.memory_format) -> nn.Module:
    """torch's own layers in the place of the quantized ones."""
    if isinstance(model[0], QLinear):
        twin = nn.Linear(model[0].in_features, model[0].out_features)
        twin.load_state_dict(model[0].state_dict())
        return nn.Sequential(twin).eval()
    return float_twin(copy.deepcopy(model)).eval().to(memory_format=layout)


def best_float(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """oneDNN with weights laid out for this input ahead, batch norm folded into them."""
    if isinstance(model[0], nn.Linear):
        layer = model[0]
        weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), len(x))
        bias = layer.bias.detach()
        run = torch.ops.mkldnn._linear_pointwise

        def call() -> Tensor:
            return run(x, weight, bias, "none", [], "")
    else:
        conv = nn.utils.fuse_conv_bn_eval(model[0], model[1])
        layout = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        weight = torch._C._nn.mkldnn_reorder_conv2d_weight(
            conv.weight.detach().to_mkldnn(), *layout, list(x.shape)
        )
        bias = conv.bias.detach()
        run = torch.ops.mkldnn._convolution_pointwise

        def call() -> Tensor:
            return run(x, weight, bias, *layout, "none", [], "")

    with torch.inference_mode():
        torch.testing.assert_close(call(), model(x), rtol=1e-3, atol=1e-3)
    return call


def int8_conv(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """torch's static int8 convolution from float to float, batch norm folded into it."""
    with warnings.catch_warnings():
        # torch announces the end of its quantized dtypes; this is the int8 that it has today.
        warnings.simplefilter("ignore")
        import torch.ao.nn.quantized as nnq

        conv = nn.utils.fuse_conv_bn_eval(model[0], model[1])
        with torch.inference_mode():
            y = conv(x)
        quantized = nnq.Conv2d(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding
        )
        weight = conv.weight.detach()
        scales = (weight.abs().amax((1, 2, 3)) / 127).double()
        zeros = torch.zeros(conv.out_channels, dtype=torch.long)
        codes = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        quantized.set_weight_bias(codes, conv.bias.detach())
        quantized.scale, quantized.zero_point = float(y.abs().max() / 127), 128
        step = float(x.abs().max() / 127)

    def call() -> Tensor:
        return quantized(torch.quantize_per_tensor(x, step, 128, torch.quint8)).dequantize()

    with torch.inference_mode():
        close(call(), y, 0.1)
    return call


def int8_dynamic(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """torch's dynamic int8 linear layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao.nn.quantized.dynamic import Linear
        from torch.ao.quantization import default_dynamic_qconfig

        layer = copy.deepcopy(model[0])
        layer.qconfig = default_dynamic_qconfig
        quantized = Linear.from_float(layer)

    def call() -> Tensor:
        return quantized(x)

    with torch.inference_mode():
        close(call(), model(x), 0.1)
    return call


def close(ours: Tensor, expected: Tensor, share: float) -> None:
    """The error's root mean square is at most a share of the values'."""
    error = float((ours - expected).square().mean().sqrt() / expected.square().mean().sqrt())
    if not error <= share:
        raise AssertionError(f"a rival is wrong by {error:.3f} of its values, more than {share}")
