"""What the dynamic layers share."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

from torch import Tensor, nn

from lowbit.nn.quantized.dynamic._legacy import unpacked
from lowbit.nn.quantized.dynamic._params import QuantizedParams
from lowbit.qtensor import QTensor


class DynamicLayer(nn.Module):
    """A layer with int8 weights, float input and float output; for inference.

    ``reduce_range`` quantizes inputs to 7 bits, as torch.ao does for processors without VNNI;
    False takes all 8 and is more exact. It is an option of the layer and not in ``state_dict``.
    State dicts of torch.ao's layers load as well, while torch can read them.
    """

    # The version from which on torch.ao's layer reduces the range; its older ones do not.
    _reduces_from = 0

    def __init__(self, reduce_range: bool) -> None:
        super().__init__()
        self.reduce_range = reduce_range
        self.training = False

    def __repr__(self) -> str:
        return f"{self._get_name()}({self.extra_repr()})"

    def _get_name(self) -> str:
        return "DynamicQuantized" + type(self).__name__

    def _every(self) -> Iterator[tuple[str, QuantizedParams]]:
        for name, module in self._modules.items():
            if isinstance(module, QuantizedParams):
                yield name, module

    def _legacy_keys(self) -> dict[str, str]:
        """Names of ``QuantizedParams`` -> the keys of torch.ao's state dicts: ``unpacked``."""
        raise NotImplementedError

    def _save_to_state_dict(
        self, destination: MutableMapping[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for _, params in self._every():
            params.save(destination, prefix)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        legacy_keys = self._legacy_keys()
        for name, params in self._every():
            legacy = unpacked(state_dict, prefix + legacy_keys[name])
            try:
                if legacy is None:
                    missing_keys += params.load(state_dict, prefix)
                    continue
                params.set(*legacy)
            except (TypeError, ValueError) as error:
                error_msgs.append(f"{prefix}{name}: {error}")
            if legacy is not None and self._reduces_from:
                version = local_metadata.get("version")
                self.reduce_range = version is not None and version >= self._reduces_from
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )


class OneMatrix(DynamicLayer):
    """A dynamic layer with one weight and one bias, ``params``."""

    params: QuantizedParams

    def weight(self) -> QTensor | Tensor:
        """The weight: a QTensor of int8, or float16 as it is."""
        return self.params.get()

    def bias(self) -> Tensor | None:
        """The bias, float32, or None."""
        return self.params.bias

    def set_weight_bias(self, w: QTensor | Tensor, b: Tensor | None) -> None:
        """Take copies of another weight and bias; errors as ``QuantizedParams.set``."""
        self.params.set(w, b)

    def _weight_bias(self) -> tuple[QTensor | Tensor, Tensor | None]:
        return self.weight(), self.bias()
