"""Running exported models in onnxruntime."""

import onnxruntime
import torch


def session(proto, optimized=None, *, fused: bool = True):
    """onnxruntime's session of a model, on the CPU in one thread.

    ``optimized``: where it writes its own graph. ``fused=False``: operator by operator as written.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not fused:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    contents = proto.SerializeToString()
    return onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])


def run(proto, *inputs: torch.Tensor, fused: bool = True) -> list[torch.Tensor]:
    """The outputs of a model in onnxruntime."""
    made = session(proto, fused=fused)
    names = [value.name for value in made.get_inputs()]
    feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    return [torch.from_numpy(y) for y in made.run(None, feed)]


def kernels(proto, folder) -> list[str]:
    """The operators that onnxruntime runs a model with."""
    import onnx

    path = folder / "optimized.onnx"
    session(proto, path)
    return [node.op_type for node in onnx.load(path).graph.node]
