"""Files of trained and converted models for other programs.

``onnx(model, example, path)`` writes an int8 model for onnxruntime and others. What torch.ao saved
becomes plain with ``python -m lowbit.export.legacy IN OUT``.
"""

from lowbit.export._onnx import onnx

__all__ = ["onnx"]
