"""Files of trained and converted models for other programs.

``onnx(model, example, path)`` writes a model, int8 or of few bits, for onnxruntime and others;
``integer_biases(model, example)`` has the biases that they compute int8 ones with.
``openvino(model, example, path)`` writes it for OpenVINO alone, with its kernel for convolutions
of signs. What torch.ao saved becomes plain with ``python -m lowbit.export.legacy IN OUT``.
"""

from lowbit.export._biases import integer_biases
from lowbit.export._onnx import onnx
from lowbit.export._openvino import openvino

__all__ = ["integer_biases", "onnx", "openvino"]
