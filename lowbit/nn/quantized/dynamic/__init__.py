"""Layers with int8 weights whose inputs are quantized in each call: float in, float out.

Names and arguments are those of torch.ao.nn.quantized.dynamic.
"""

from lowbit.nn.quantized.dynamic.cells import GRUCell, LSTMCell, RNNCell
from lowbit.nn.quantized.dynamic.conv import Conv1d, Conv2d, Conv3d
from lowbit.nn.quantized.dynamic.conv_transpose import (
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from lowbit.nn.quantized.dynamic.linear import Linear, LinearReLU
from lowbit.nn.quantized.dynamic.rnn import GRU, LSTM

__all__ = [
    "GRU",
    "LSTM",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "GRUCell",
    "LSTMCell",
    "Linear",
    "LinearReLU",
    "RNNCell",
]
