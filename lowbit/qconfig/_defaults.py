"""QConfigs with the settings that are usual, by torch.ao's names."""

from __future__ import annotations

import torch
from torch import nn

from lowbit import observers as o
from lowbit.qconfig._qconfig import QConfig

# After training.
default_qconfig = QConfig(o.default_observer, o.default_weight_observer)
default_per_channel_qconfig = QConfig(o.default_observer, o.default_per_channel_weight_observer)
default_debug_qconfig = QConfig(o.default_debug_observer, o.default_weight_observer)
default_quint8_weight_qconfig = QConfig(o.HistogramObserver, o.MinMaxObserver)
default_reuse_input_qconfig = QConfig(o.default_reuse_input_observer, o.NoopObserver)
_SIGNED_HISTOGRAM = o.HistogramObserver.with_args(dtype="int8", eps=2**-12)
default_symmetric_qnnpack_qconfig = QConfig(
    _SIGNED_HISTOGRAM, o.weight_observer_range_neg_127_to_127
)
default_per_channel_symmetric_qnnpack_qconfig = QConfig(
    _SIGNED_HISTOGRAM, o.per_channel_weight_observer_range_neg_127_to_127
)

# Scales chosen as the network runs.
default_dynamic_qconfig = QConfig(o.default_dynamic_quant_observer, o.default_weight_observer)
per_channel_dynamic_qconfig = QConfig(
    o.default_dynamic_quant_observer, o.default_per_channel_weight_observer
)
float16_dynamic_qconfig = QConfig(
    o.PlaceholderObserver.with_args(dtype=torch.float16, is_dynamic=True),
    o.PlaceholderObserver.with_args(dtype=torch.float16),
)
float16_static_qconfig = QConfig(
    o.PlaceholderObserver.with_args(dtype=torch.float16),
    o.PlaceholderObserver.with_args(dtype=torch.float16),
)

# Embeddings: a scale and a zero point for each row, in floating point.
float_qparams_weight_only_qconfig = QConfig(
    o.default_placeholder_observer, o.default_float_qparams_observer
)
float_qparams_weight_only_qconfig_4bit = QConfig(
    o.default_placeholder_observer, o.default_float_qparams_observer_4bit
)
float_qparams_weight_only_qconfig_2bit = QConfig(
    o.default_placeholder_observer, o.default_float_qparams_observer_2bit
)
_FLOAT = o.NoopObserver.with_args(dtype=torch.float32)
default_embedding_qat_qconfig = QConfig(_FLOAT, o.default_embedding_fake_quant)
default_embedding_qat_qconfig_4bit = QConfig(_FLOAT, o.default_embedding_fake_quant_4bit)

# In training.
default_qat_qconfig = QConfig(o.default_fake_quant, o.default_weight_fake_quant)
default_qat_qconfig_v2 = QConfig(o.default_fused_act_fake_quant, o.default_fused_wt_fake_quant)
default_dynamic_qat_qconfig = QConfig(o.default_dynamic_fake_quant, o.default_weight_fake_quant)
default_weight_only_qconfig = QConfig(nn.Identity, o.default_weight_fake_quant)
default_activation_only_qconfig = QConfig(o.default_fake_quant, nn.Identity)
_SIGNED_FAKE = o.FusedMovingAvgObsFakeQuantize.with_args(
    quant_min=-128, quant_max=127, dtype="int8", eps=2**-12
)
default_symmetric_qnnpack_qat_qconfig = QConfig(
    _SIGNED_FAKE, o.fused_wt_fake_quant_range_neg_127_to_127
)
default_per_channel_symmetric_qnnpack_qat_qconfig = QConfig(
    _SIGNED_FAKE, o.fused_per_channel_wt_fake_quant_range_neg_127_to_127
)

BACKENDS = ("x86", "fbgemm", "onednn", "qnnpack")


def get_default_qconfig(backend: str = "x86", version: int = 0) -> QConfig:
    """For quantization after training, as torch.ao's of the same backend.

    uint8 activations by a histogram, 7 bits of them for "x86" and "fbgemm"; int8 weights, one
    scale for each channel, but for "qnnpack". Where the processor has VNNI, "onednn" loses
    nothing to the missing bit.
    """
    _check(backend, version, (0,))
    activation = o.HistogramObserver.with_args(reduce_range=backend in ("x86", "fbgemm"))
    if backend == "qnnpack":
        return QConfig(activation, o.default_weight_observer)
    return QConfig(activation, o.default_per_channel_weight_observer)


def get_default_qat_qconfig(backend: str = "x86", version: int | None = 1) -> QConfig:
    """For quantization-aware training, as torch.ao's of the same backend.

    Moving averages of the range; otherwise as ``get_default_qconfig``. Version 0 makes
    ``FakeQuantize``, version 1 ``FusedMovingAvgObsFakeQuantize``: here they compute the same.
    """
    _check(backend, version, (0, 1))
    fake = o.FakeQuantize if version == 0 else o.FusedMovingAvgObsFakeQuantize
    activation = fake.with_args(
        observer=o.MovingAverageMinMaxObserver,
        quant_min=0,
        quant_max=255,
        reduce_range=backend in ("x86", "fbgemm"),
    )
    if backend == "qnnpack":
        per_tensor = (o.default_weight_fake_quant, o.default_fused_wt_fake_quant)
        return QConfig(activation, per_tensor[version or 0])
    per_channel = (
        o.default_per_channel_weight_fake_quant,
        o.default_fused_per_channel_wt_fake_quant,
    )
    return QConfig(activation, per_channel[version or 0])


def _check(backend: str, version: int | None, versions: tuple[int, ...]) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"no backend {backend!r}; known: {', '.join(BACKENDS)}")
    if version not in versions:
        raise ValueError(f"no version {version!r}; known: {', '.join(map(str, versions))}")
