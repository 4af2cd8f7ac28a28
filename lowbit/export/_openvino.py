"""Models for OpenVINO, with its own kernel for convolutions of signs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from lowbit.export._onnx import check_place, proto_of, tensors_of
from lowbit.export._package import openvino_package

DOMAIN = "lowbit"
# What the two files of a model end in: its graph, and the numbers of its constants.
ENDS = (".xml", ".bin")


def openvino(
    model: nn.Module,
    example: Any,
    path: str | Path | None = None,
    *,
    dynamic_batch: bool = True,
) -> Any:
    """Write a model as OpenVINO's ``.xml`` and ``.bin``; its ``openvino.Model``.

    model          trained, or of ``lowbit.convert``; a copy in eval mode is what is exported
    example        an input, or a tuple of them, that the model runs on once
    path           the file that ends in .xml; that of the same name in .bin is written beside it.
                   None writes none
    dynamic_batch  the file is for the example's shapes, since OpenVINO has BinaryConvolution for
                   fixed ones alone; ``openvino.Model.reshape`` makes it one for another number of
                   images. False: not so, for models whose arithmetic depends on that number

    Two-dimensional convolutions of signs with signs, in one group and of a multiple of 8 input
    channels, become BinaryConvolution (xnor and popcount) of packed weights, its input a
    FakeQuantize with two levels at the layer's own thresholds: the same integers, with padding of
    -1, 0 or 1. All else is as ``onnx`` with ``binary="int8"`` writes it. No extension is needed to
    read the files.

    Raises ModuleNotFoundError without the packages onnx and openvino, and as ``onnx``.
    """
    package = openvino_package()
    if path is not None and Path(path).suffix != ENDS[0]:
        raise ValueError(f"OpenVINO reads a model from a file that ends in .xml; got {str(path)!r}")
    if path is not None:
        check_place(Path(path))
    proto = proto_of(model, example, dynamic_batch, True, "openvino")
    core = package.Core()
    extension = package.frontend.onnx.ConversionExtension
    core.add_extension(extension("BinaryQuantize", DOMAIN, _quantize))
    core.add_extension(extension("BinaryConvolution", DOMAIN, _convolve))
    made = core.read_model(proto.SerializeToString(), b"")
    shapes = [package.PartialShape(list(leaf.shape)) for leaf in tensors_of(example)]
    made.reshape(dict(enumerate(shapes)))
    if path is not None:
        _write(package, made, Path(path))
    return made


def _write(package: Any, model: Any, path: Path) -> None:
    """Both beside the files first: they are there whole, or as they were before."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        beside = Path(folder) / path.name
        package.save_model(model, beside, compress_to_fp16=False)
        for end in reversed(ENDS):
            beside.with_suffix(end).replace(path.with_suffix(end))


def _quantize(node: Any) -> Any:
    """0 up to a limit and 1 above it, or the other way round: FakeQuantize with two levels."""
    opset = openvino_package().opset1
    limit, low, high = (_constant(node, number) for number in (1, 2, 3))
    parts = (_numbers(part) for part in (limit, limit, low, high))
    return opset.fake_quantize(node.get_input(0), *parts, levels=2).outputs()


def _convolve(node: Any) -> Any:
    package = openvino_package()
    bits, shape = _constant(node, 1).copy(), list(node.get_attribute("shape"))
    weight = package.Tensor(bits, package.Shape(shape), package.Type.u1)
    pads = list(node.get_attribute("pads"))
    made = package.opset1.binary_convolution(
        node.get_input(0),
        package.op.Constant(weight, shared_memory=False),
        list(node.get_attribute("strides")),
        pads[:2],
        pads[2:],
        list(node.get_attribute("dilations")),
        "xnor-popcount",
        float(node.get_attribute("pad_value")),
    )
    return made.outputs()


def _constant(node: Any, number: int) -> Any:
    return node.get_input(number).get_node().data


def _numbers(values: Any) -> Any:
    """A constant of four axes, as the kernel wants it."""
    shape = (1, values.size, 1, 1) if values.ndim < 4 else values.shape
    return openvino_package().opset1.constant(values.reshape(shape).copy())
