"""The operators in opcheck, torch.compile, torch.export and on fake tensors."""

import pytest
import torch
from torch import Tensor, nn

from lowbit import kernels
from lowbit.functional import packed_conv as spec
from lowbit.functional.packed_conv import AFFINE, HARDTANH, PRELU, RESIDUAL
from lowbit.kernels import Geometry
from tests.kernels._layers import Layer, assert_same, drawn, layer_of

STEPS = [AFFINE, RESIDUAL, PRELU, HARDTANH]
SPATIAL = {0: (), 1: (9,), 2: (5, 6), 3: (2, 3, 4)}


def cubic(dims: int, **others: int) -> Layer:
    g = Geometry.of(70, 65, 1, [3] * dims, [2] * dims, [1] * dims, [1] * dims, **others)
    return layer_of(g, SPATIAL[dims])


def check(operator, *args) -> None:
    torch.library.opcheck(operator.default, args)


def test_opcheck_of_prepare(isa):
    layer = cubic(2, planes_w=2)
    check(torch.ops.lowbit.prepare, layer.words, list(layer.geometry), isa)
    check(torch.ops.lowbit.prepare, layer.words, list(layer.geometry), "")


@pytest.mark.parametrize("dims", [0, 1, 2, 3])
def test_opcheck_of_pack(dims):
    x = torch.randn(2, 70, *SPATIAL[dims])
    last = x.movedim(1, -1).contiguous().movedim(-1, 1)
    check(torch.ops.lowbit.pack, x, None, 1, False, 1)
    check(torch.ops.lowbit.pack, last, torch.randn(3).sort().values, 2, False, 2)
    check(torch.ops.lowbit.pack, x[:0], torch.randn(2, 70).sort(0).values, 2, True, 5)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dims", [0, 1, 2, 3])
def test_opcheck_of_bconv(dims, channels_last):
    layer = cubic(dims, planes_x=2)
    g, panel, packed = layer.geometry, layer.panel(), layer.packed
    y = layer.expected()
    residual, params = torch.randn(y.shape), torch.randn(4, 65)
    operators = torch.ops.lowbit
    plain, stepped, ends = g.layer([]), g.layer(STEPS), (spec.FLOAT, channels_last)
    for x, t in ((layer.x, layer.thresholds), (packed, None)):
        check(operators.bconv, x, panel, None, t, None, plain, spec.INT, channels_last)
        check(operators.bconv, x, panel, params[:3], t, residual, stepped, *ends)
        bits = torch.zeros(2, 65, dtype=torch.int32)
        check(operators.bconv, x, panel, bits, t, None, plain, spec.BITS, channels_last)
        check(operators.bconv_both, x, panel, params, t, residual, stepped, channels_last)
    none = packed[:0]
    check(operators.bconv, none, panel, None, None, None, plain, spec.INT, channels_last)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_opcheck_of_max_pool_bits(ceil_mode):
    words = kernels.pack(torch.randn(2, 70, 8, 7))
    window = ([3, 2], [2, 2], [1, 0], [1, 2], ceil_mode)
    check(torch.ops.lowbit.max_pool_bits, words, *window, None)
    check(torch.ops.lowbit.max_pool_bits, words, *window, torch.tensor([-1, 63]))


@pytest.mark.parametrize("seed", range(40))
def test_fake_results_look_like_real_ones(seed):
    layer, meta = drawn(seed), torch.device("meta")
    g, panel = layer.geometry, layer.panel()
    thresholds = layer.thresholds
    moved = None if thresholds is None else thresholds.to(meta)

    def alike(real: Tensor, fake: Tensor) -> None:
        assert fake.device == meta
        assert (fake.shape, fake.dtype) == (real.shape, real.dtype)
        assert fake.stride() == real.stride()

    planes = (g.planes_x, bool(g.thermometer_x), g.groups)
    alike(
        kernels.pack(layer.x, thresholds, *planes), kernels.pack(layer.x.to(meta), moved, *planes)
    )
    for out in (spec.INT, spec.FLOAT):
        for channels_last in (False, True):
            ends = (None, g, (), out, channels_last)
            real = kernels.bconv(layer.x, panel, None, thresholds, *ends)
            alike(real, kernels.bconv(layer.x.to(meta), panel.to(meta), None, moved, *ends))


class Net(nn.Module):
    """Two layers that meet as bits, by a pool, and then by floats and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Geometry.of(70, 65, 1, (3, 3), (1, 1), (1, 1), (1, 1))
        self.second = Geometry.of(65, 65, 1, (3, 3), (1, 1), (1, 1), (1, 1), pad=0)
        for i, g in enumerate((self.first, self.second)):
            self.register_buffer(f"panel{i}", layer_of(g, (5, 6), seed=i).panel())
        self.register_buffer("params", torch.randn(3, 65))
        self.register_buffer("thresholds", torch.zeros(2, 65, dtype=torch.int32))
        self.register_buffer("flip", torch.tensor([-1, 1]))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        words = kernels.pack(x)
        y, bits = kernels.bconv_both(
            words, self.panel0, self.params, None, None, self.first, [AFFINE], True
        )
        z = kernels.bconv(
            bits, self.panel1, self.params[:2], None, y, self.second, [AFFINE, RESIDUAL], 1, True
        )
        signs = kernels.bconv(bits, self.panel1, self.thresholds, None, None, self.second, (), 2)
        pooled = kernels.max_pool_bits(signs, (2, 2), (2, 2), (0, 0), (1, 1), True, self.flip)
        sums = kernels.bconv(pooled, self.panel1, None, None, None, self.second)
        return z.relu(), signs, sums + 1


def assert_all_same(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for a, b in zip(got, expected, strict=True):
        assert_same(a, b)
        assert a.stride() == b.stride()


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_it_is_the_same(dynamic):
    torch.compiler.reset()
    net = Net()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for shape in [(2, 70, 5, 6), (3, 70, 7, 9)]:
        x = torch.randn(shape)
        with torch.no_grad():
            assert_all_same(compiled(x), net(x))


def test_exported_it_is_the_same():
    net, x = Net(), torch.randn(2, 70, 5, 6)
    exported = torch.export.export(net, (x,))
    names = {str(node.target) for node in exported.graph.nodes}
    assert {"lowbit.bconv.default", "lowbit.max_pool_bits.default"} <= names
    other = torch.randn(2, 70, 5, 6)
    assert_all_same(exported.module()(other), net(other))


def test_exported_with_any_size_it_is_the_same():
    net, dim = Net(), torch.export.Dim.DYNAMIC
    sizes = ({0: dim, 2: dim, 3: dim},)
    exported = torch.export.export(net, (torch.randn(2, 70, 5, 6),), dynamic_shapes=sizes)
    x = torch.randn(3, 70, 9, 8)
    assert_all_same(exported.module()(x), net(x))
