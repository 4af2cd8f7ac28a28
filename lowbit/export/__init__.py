"""Files of trained and converted models for other programs.

``onnx(model, example, path)`` writes an int8 model for onnxruntime and others;
``integer_biases(model, example)`` has the biases that they compute with. What torch.ao saved
becomes plain with ``python -m lowbit.export.legacy IN OUT``.
"""

from lowbit.export._biases import integer_biases
from lowbit.export._onnx import onnx

__all__ = ["integer_biases", "onnx"]
