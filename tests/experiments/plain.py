"""A binary network without batch normalisation, whose statistics differ between processes."""

from torch import nn

from lowbit.nn import QLinear


class Plain(nn.Sequential):
    """flatten - Linear - QLinear - Linear, for images of 8 x 8 and ten classes."""

    def __init__(
        self,
        input_quantization=None,
        weight_quantization=None,
        gradient_cancellation_threshold=None,
    ):
        super().__init__(
            nn.Flatten(),
            nn.Linear(64, 16),
            QLinear(
                16,
                16,
                input_quantization=input_quantization,
                weight_quantization=weight_quantization,
                gradient_cancellation_threshold=gradient_cancellation_threshold,
            ),
            nn.LayerNorm(16),
            nn.Linear(16, 10),
        )
