"""OpenVINO's BinaryConvolution: an optional peer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


@functools.cache
def openvino() -> Any:
    """The module, or None where it is not installed."""
    try:
        import openvino
    except ImportError:
        return None
    return openvino


NOT_INSTALLED = "openvino not installed"


class Chain:
    """A network of ``depth`` 3 x 3 binary convolutions of one image, and its runner.

    ``residual`` False: sign, convolution, threshold, convolution …: bits between them.
    True: x + a conv(sign(x)) + b again and again: float between them.
    """

    def __init__(self, channels: int, size: int, depth: int, residual: bool, threads: int) -> None:
        ov = openvino()
        from openvino import opset1

        self._opset, self._ov, self._channels = opset1, ov, channels
        # OpenVINO's tensors borrow the memory of numpy's arrays.
        self._arrays: list[Any] = []
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(1, channels, size, size, generator=generator)
        self.weights = [
            torch.randn(channels, channels, 3, 3, generator=generator) for _ in range(depth)
        ]
        self.scale = torch.rand(channels, generator=generator) * 0.01 + 0.005
        self.bias = torch.randn(channels, generator=generator) * 0.1
        self.residual = residual

        parameter = opset1.parameter(list(self.x.shape), ov.Type.f32)
        y = parameter
        for weight in self.weights:
            z = self._convolution(self._sign(y), weight)
            if residual:
                z = opset1.multiply(z, self._constant(self.scale))
                z = opset1.add(opset1.add(z, self._constant(self.bias)), y)
            y = z
        core = ov.Core()
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        self._compiled = core.compile_model(ov.Model([y], [parameter], "chain"), "CPU", options)

    def _constant(self, values: Tensor) -> Any:
        array = values.reshape(1, -1, 1, 1).numpy().copy()
        self._arrays.append(array)
        return self._opset.constant(array)

    def _sign(self, x: Any) -> Any:
        # Constants of its own for each, else it is not fused into the convolution before it.
        zero = torch.zeros(self._channels)
        low, high = torch.zeros(1), torch.ones(1)
        parts = [self._constant(part) for part in (zero, zero, low, high)]
        return self._opset.fake_quantize(x, *parts, levels=2)

    def _convolution(self, x: Any, weight: Tensor) -> Any:
        import numpy

        bits = numpy.packbits((weight >= 0).numpy().reshape(-1), bitorder="little")
        self._arrays.append(bits)
        tensor = self._ov.Tensor(bits, self._ov.Shape(list(weight.shape)), self._ov.Type.u1)
        around = ([1, 1], [1, 1], [1, 1], [1, 1])
        return self._opset.binary_convolution(
            x, self._ov.op.Constant(tensor), *around, "xnor-popcount", 0.0
        )

    def runner(self) -> Callable[[], object]:
        request = self._compiled.create_infer_request()
        array = self.x.numpy()
        self._arrays.append(array)
        request.set_input_tensor(self._ov.Tensor(array))
        return request.infer

    def check(self) -> None:
        """Its answers are those of float convolutions of the signs."""
        expected = self.x
        for weight in self.weights:
            signs = torch.where(expected > 0, 1.0, -1.0)
            z = torch.nn.functional.conv2d(signs, torch.where(weight >= 0, 1.0, -1.0), padding=1)
            if self.residual:
                z = z * self.scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1) + expected
            expected = z
        ours = torch.from_numpy(self._compiled([self.x.numpy()])[0])
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
