"""onnxruntime and OpenVINO on one quantized file: optional peers.

The float network with folded batch norms is exported, and quantized by onnxruntime: uint8
activations between the least and the greatest value that the calibration images gave, int8 weights
with a scale for each channel, both full range, as QuantizeLinear and DequantizeLinear nodes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from _bench.int8.absent import NotHere
from _bench.int8.folded import folded
from _bench.int8.resnet import Task

Maker = Callable[[Tensor], Callable[[], Tensor]]
_folder = tempfile.TemporaryDirectory()


def onnxruntime() -> Any:
    """The module, with its quantization; NotHere without it or what exports to it."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxruntime.quantization
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise NotHere(f"{error.name} not installed") from error
    return onnxruntime


class _Calibration:
    """Calibration images, one at a time, as onnxruntime reads them."""

    def __init__(self, images: Tensor) -> None:
        self._left = iter(images.split(1))

    def get_next(self) -> dict[str, Any] | None:
        x = next(self._left, None)
        return None if x is None else {"x": x.contiguous().numpy()}


@functools.cache
def _quantized(task: Task) -> Path:
    """The file of the quantized network; made once."""
    quantization = onnxruntime().quantization
    folder = Path(tempfile.mkdtemp(dir=_folder.name))
    plain, prepared, path = (folder / f"{name}.onnx" for name in ("plain", "prepared", "int8"))
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime warns on the root logger
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        torch.no_grad(),
    ):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            folded(task.model),
            (task.calibration[:2].contiguous(),),
            str(plain),
            input_names=["x"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
        quantization.quant_pre_process(str(plain), str(prepared))
        quantization.quantize_static(
            str(prepared),
            str(path),
            _Calibration(task.calibration),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
    return path


def in_onnxruntime(task: Task) -> Maker:
    """The network in onnxruntime, which is handed a numpy array in its own layout, NCHW."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(
        str(_quantized(task)), options, providers=["CPUExecutionProvider"]
    )

    def make(x: Tensor) -> Callable[[], Tensor]:
        array = x.contiguous().numpy()
        return lambda: torch.from_numpy(session.run(None, {"x": array})[0])

    return make


def in_openvino(task: Task) -> Maker:
    """The network in OpenVINO, compiled for the shape of the input; it too is handed NCHW."""
    try:
        import openvino
    except ImportError as error:
        raise NotHere("openvino not installed") from error
    path = _quantized(task)
    options = {"INFERENCE_NUM_THREADS": task.threads, "PERFORMANCE_HINT": "LATENCY"}
    core = openvino.Core()

    def make(x: Tensor) -> Callable[[], Tensor]:
        array = x.contiguous().numpy()
        network = core.read_model(path)
        network.reshape(list(x.shape))
        request = core.compile_model(network, "CPU", options).create_infer_request()
        request.set_input_tensor(openvino.Tensor(array, shared_memory=True))
        found = torch.from_numpy(request.get_output_tensor().data)

        def call() -> Tensor:
            request.infer()
            return found.clone()  # the memory is the request's

        return call

    return make
