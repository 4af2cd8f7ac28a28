"""The integers of a packed layer: its shape, its padding and how its operands are coded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lowbit.functional.packing import words_for

# Sums, and twice what stands in for them on the way, stay within int32.
LARGEST_SUM = 2**29 - 1


def largest_code(planes: int, thermometer: bool | int) -> int:
    """The largest integer that ``planes`` planes of bits code; the smallest is its negative."""
    return planes if thermometer else 2**planes - 1


def threshold_count(planes: int, thermometer: bool | int) -> int:
    """How many thresholds code a real number into ``planes`` planes."""
    return planes if thermometer else 2**planes - 1


class Geometry(NamedTuple):
    """Everything integer about a packed layer; the operators take it as a list of integers.

    Spatial axes are d, h, w: two-dimensional layers have d = 1, one-dimensional ones d = h = 1,
    linear layers 1 everywhere. ``before`` and ``after`` are the padding at the two ends of an
    axis, ``pad`` the integer that lies there, ``offset`` what is added to every integer inside
    the image. ``planes_x`` and ``planes_w`` are the planes of bits of the input and the weight;
    their weights are 1, 2, 4 … (digits) or all 1 (``thermometer``).

    >>> g = Geometry.of(64, 128, kernel=(3, 3), stride=(2, 2), before=(1, 1), after=(1, 1))
    >>> g.words, g.taps, g.output_size((56, 56))
    (1, 9, (28, 28))
    """

    channels: int
    out_channels: int
    groups: int = 1
    kernel_d: int = 1
    kernel_h: int = 1
    kernel_w: int = 1
    stride_d: int = 1
    stride_h: int = 1
    stride_w: int = 1
    before_d: int = 0
    before_h: int = 0
    before_w: int = 0
    after_d: int = 0
    after_h: int = 0
    after_w: int = 0
    dilation_d: int = 1
    dilation_h: int = 1
    dilation_w: int = 1
    pad: int = -1
    offset: int = 0
    planes_x: int = 1
    planes_w: int = 1
    thermometer_x: int = 0
    thermometer_w: int = 0

    @classmethod
    def of(
        cls,
        channels: int,
        out_channels: int,
        groups: int = 1,
        kernel: Sequence[int] = (),
        stride: Sequence[int] = (),
        before: Sequence[int] = (),
        after: Sequence[int] = (),
        dilation: Sequence[int] = (),
        **others: int,
    ) -> Geometry:
        """From sequences for the last axes of d, h, w; what they leave out is neutral."""
        axes: list[int] = []
        for values, neutral in ((kernel, 1), (stride, 1), (before, 0), (after, 0), (dilation, 1)):
            axes += [neutral] * (3 - len(values)) + [int(v) for v in values]
        return cls(channels, out_channels, groups, *axes, **others)

    @property
    def kernel(self) -> tuple[int, int, int]:
        return self.kernel_d, self.kernel_h, self.kernel_w

    @property
    def stride(self) -> tuple[int, int, int]:
        return self.stride_d, self.stride_h, self.stride_w

    @property
    def before(self) -> tuple[int, int, int]:
        return self.before_d, self.before_h, self.before_w

    @property
    def after(self) -> tuple[int, int, int]:
        return self.after_d, self.after_h, self.after_w

    @property
    def dilation(self) -> tuple[int, int, int]:
        return self.dilation_d, self.dilation_h, self.dilation_w

    @property
    def taps(self) -> int:
        """Places of the kernel."""
        return self.kernel_d * self.kernel_h * self.kernel_w

    @property
    def words(self) -> int:
        """Words that hold one bit of each channel of a group."""
        return words_for(self.channels // self.groups)

    @property
    def padded(self) -> bool:
        return any(self.before) or any(self.after)

    @property
    def bound(self) -> int:
        """No output is larger in magnitude."""
        a = largest_code(self.planes_x, self.thermometer_x) + abs(self.offset)
        a = max(a, abs(self.pad)) if self.padded else a
        b = largest_code(self.planes_w, self.thermometer_w)
        return self.taps * (self.channels // self.groups) * a * b

    def output_size(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """The spatial size of the output; ``spatial`` has the last axes of d, h, w."""
        start = 3 - len(spatial)
        sizes = []
        for axis, size in enumerate(spatial, start):
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            out = (size + self.before[axis] + self.after[axis] - reach) // self.stride[axis] + 1
            # A size may be a symbol; while it is traced there is nothing to refuse.
            if isinstance(out, int) and out < 1:
                raise ValueError(
                    f"a kernel that reaches over {reach} elements does not fit into {size} with "
                    f"{self.before[axis]} and {self.after[axis]} of padding; give a larger input"
                )
            sizes.append(out)
        return tuple(sizes)

    def layer(self, steps: Sequence[int] = ()) -> str:
        """The geometry and the steps in the one string that operators take: quick to pass.

        >>> Geometry(64, 10).layer([1])
        '64 10 1 1 1 1 1 1 1 0 0 0 0 0 0 1 1 1 -1 0 1 1 0 0 1'
        """
        return " ".join(map(str, (*self, *steps)))

    @classmethod
    def parse(cls, layer: str) -> tuple[Geometry, list[int]]:
        """The geometry and the steps of ``layer(steps)``."""
        numbers = [int(number) for number in layer.split()]
        count = len(cls._fields)
        if len(numbers) < count:
            raise ValueError(f"a geometry has {count} numbers; got {len(numbers)} in {layer!r}")
        return cls(*numbers[:count]), numbers[count:]

    @classmethod
    def from_numbers(cls, numbers: Sequence[int]) -> Geometry:
        """The geometry that operators take as a list of integers."""
        if len(numbers) != len(cls._fields):
            raise ValueError(f"a geometry has {len(cls._fields)} numbers; got {len(numbers)}")
        return cls(*numbers)

    def check(self) -> None:
        """Raise ``ValueError`` where the integers make no layer."""
        if self.groups < 1 or self.channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"channels and out_channels are multiples of groups; got {self.channels}, "
                f"{self.out_channels} and {self.groups}"
            )
        for names, low in (
            (("channels", "out_channels", *(f"{n}_{a}" for n in _STEPS for a in "dhw")), 1),
            (tuple(f"{n}_{a}" for n in ("before", "after") for a in "dhw"), 0),
        ):
            for name in names:
                if getattr(self, name) < low:
                    raise ValueError(f"{name} must be at least {low}; got {getattr(self, name)}")
        for name in ("planes_x", "planes_w"):
            if not 1 <= getattr(self, name) <= 8:
                raise ValueError(f"{name} is 1 to 8; got {getattr(self, name)}")
        for name in ("thermometer_x", "thermometer_w"):
            if getattr(self, name) not in (0, 1):
                raise ValueError(f"{name} is 0 or 1; got {getattr(self, name)}")
        if self.bound > LARGEST_SUM:
            raise ValueError(
                f"sums of {self.taps * (self.channels // self.groups)} products reach "
                f"{self.bound}, more than {LARGEST_SUM}; use fewer channels, taps or planes"
            )


_STEPS = ("kernel", "stride", "dilation")
