"""Training layers with latent weights: their torch parents, on quantized tensors."""

from lowbit.nn._layer import QuantizedLayer, latent_layers
from lowbit.nn.activation import QActivation
from lowbit.nn.channel_mix import ChannelMix
from lowbit.nn.channel_scale import ChannelScale
from lowbit.nn.conv import QConv1d, QConv2d, QConv3d
from lowbit.nn.conv_transpose import QConvTranspose1d, QConvTranspose2d, QConvTranspose3d
from lowbit.nn.dprelu import DPReLU
from lowbit.nn.embedding import QEmbedding, QEmbeddingBag
from lowbit.nn.gradient import quantize_gradients
from lowbit.nn.learned_scale import LearnedScale
from lowbit.nn.linear import QLinear
from lowbit.nn.maxout import Maxout
from lowbit.nn.rprelu import RPReLU
from lowbit.nn.stubs import DeQuantStub, QuantStub

__all__ = [
    "ChannelMix",
    "ChannelScale",
    "DPReLU",
    "DeQuantStub",
    "LearnedScale",
    "Maxout",
    "QActivation",
    "QConv1d",
    "QConv2d",
    "QConv3d",
    "QConvTranspose1d",
    "QConvTranspose2d",
    "QConvTranspose3d",
    "QEmbedding",
    "QEmbeddingBag",
    "QLinear",
    "QuantStub",
    "QuantizedLayer",
    "RPReLU",
    "latent_layers",
    "quantize_gradients",
]
