"""Observers and fake quantizers with the settings that are usual, by torch.ao's names."""

from __future__ import annotations

from lowbit.observers.fake_quantize import (
    FakeQuantize,
    FixedQParamsFakeQuantize,
    FusedMovingAvgObsFakeQuantize,
)
from lowbit.observers.histogram import HistogramObserver
from lowbit.observers.min_max import MinMaxObserver, PerChannelMinMaxObserver
from lowbit.observers.moving_average import (
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)
from lowbit.observers.silent import (
    FixedQParamsObserver,
    PlaceholderObserver,
    RecordingObserver,
    ReuseInputObserver,
)

_SIGNED = {"dtype": "int8", "qscheme": "per_tensor_symmetric"}
_SIGNED_CHANNELS = {"dtype": "int8", "qscheme": "per_channel_symmetric"}
_ALL = {"quant_min": -128, "quant_max": 127}
# Without -128, and with scales that XNNPACK can requantize by.
_EVEN = {"quant_min": -127, "quant_max": 127, "eps": 2**-12}
_ROWS = {"qscheme": "per_channel_affine_float_qparams", "ch_axis": 0}

# Activations.
default_observer = MinMaxObserver.with_args(quant_min=0, quant_max=127)
default_histogram_observer = HistogramObserver.with_args(quant_min=0, quant_max=127)
default_placeholder_observer = PlaceholderObserver
default_debug_observer = RecordingObserver
default_reuse_input_observer = ReuseInputObserver
default_dynamic_quant_observer = PlaceholderObserver.with_args(
    dtype="uint8", quant_min=0, quant_max=255, is_dynamic=True
)
default_fixed_qparams_range_neg1to1_observer = FixedQParamsObserver.with_args(
    scale=2.0 / 256.0, zero_point=128
)
default_fixed_qparams_range_0to1_observer = FixedQParamsObserver.with_args(
    scale=1.0 / 256.0, zero_point=0
)

# Weights.
default_weight_observer = MinMaxObserver.with_args(**_SIGNED)
default_per_channel_weight_observer = PerChannelMinMaxObserver.with_args(**_SIGNED_CHANNELS)
weight_observer_range_neg_127_to_127 = MinMaxObserver.with_args(**_SIGNED, **_EVEN)
per_channel_weight_observer_range_neg_127_to_127 = PerChannelMinMaxObserver.with_args(
    **_SIGNED_CHANNELS, **_EVEN
)
default_float_qparams_observer = PerChannelMinMaxObserver.with_args(dtype="uint8", **_ROWS)
default_float_qparams_observer_4bit = PerChannelMinMaxObserver.with_args(dtype="quint4x2", **_ROWS)
default_float_qparams_observer_2bit = PerChannelMinMaxObserver.with_args(dtype="quint2x4", **_ROWS)

# Fake quantizers of activations.
default_fake_quant = FakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255, reduce_range=True
)
default_dynamic_fake_quant = FakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver,
    quant_min=0,
    quant_max=255,
    is_dynamic=True,
    averaging_constant=1,
)
default_histogram_fake_quant = FakeQuantize.with_args(
    observer=HistogramObserver, quant_min=0, quant_max=255, reduce_range=True
)
default_fused_act_fake_quant = FusedMovingAvgObsFakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver, quant_min=0, quant_max=255
)
default_fixed_qparams_range_neg1to1_fake_quant = FixedQParamsFakeQuantize.with_args(
    observer=default_fixed_qparams_range_neg1to1_observer
)
default_fixed_qparams_range_0to1_fake_quant = FixedQParamsFakeQuantize.with_args(
    observer=default_fixed_qparams_range_0to1_observer
)

# Fake quantizers of weights.
default_weight_fake_quant = FakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver, **_SIGNED, **_ALL
)
default_per_channel_weight_fake_quant = FakeQuantize.with_args(
    observer=MovingAveragePerChannelMinMaxObserver, **_SIGNED_CHANNELS, **_ALL
)
default_fused_wt_fake_quant = FusedMovingAvgObsFakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver, **_SIGNED, **_ALL
)
default_fused_per_channel_wt_fake_quant = FusedMovingAvgObsFakeQuantize.with_args(
    observer=MovingAveragePerChannelMinMaxObserver, **_SIGNED_CHANNELS, **_ALL
)
fused_wt_fake_quant_range_neg_127_to_127 = FusedMovingAvgObsFakeQuantize.with_args(
    observer=MovingAverageMinMaxObserver, **_SIGNED, **_EVEN
)
fused_per_channel_wt_fake_quant_range_neg_127_to_127 = FusedMovingAvgObsFakeQuantize.with_args(
    observer=MovingAveragePerChannelMinMaxObserver, **_SIGNED_CHANNELS, **_EVEN
)
default_embedding_fake_quant = FakeQuantize.with_args(
    observer=MovingAveragePerChannelMinMaxObserver, dtype="uint8", averaging_constant=1, **_ROWS
)
default_embedding_fake_quant_4bit = FakeQuantize.with_args(
    observer=MovingAveragePerChannelMinMaxObserver, dtype="quint4x2", averaging_constant=1, **_ROWS
)
