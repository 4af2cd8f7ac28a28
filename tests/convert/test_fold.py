"""What is folded, what is not, and that neither changes an output."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowbit
from lowbit.convert._layout import AsTrained
from lowbit.functional.packing import pack_signs
from lowbit.nn import DPReLU, LearnedScale, Maxout, QActivation, QConv2d, QLinear, RPReLU
from lowbit.nn.packed import PackedLayer, PackedMaxPool2d
from tests.convert._networks import SIGN, Plain, Residual, integers, shaken

SHAPE = (3, 32, 9, 7)


def convert(model: nn.Module, **options):
    return lowbit.convert(model, keep_slower=True, **options)


def assert_same_bits(model: nn.Module, *inputs: torch.Tensor, **options):
    """Convert, compare, and return the converted model and the report."""
    converted, report = convert(model, **options)
    inputs = inputs or (integers(SHAPE),)
    with torch.no_grad():
        assert torch.equal(converted(*inputs), model(*inputs))
    return converted, report


def outputs(report) -> list[str]:
    return [row.output for row in report]


ORDERS = {
    "nothing": lambda c: [],
    "norm": lambda c: [nn.BatchNorm2d(c)],
    "norm without parameters": lambda c: [nn.BatchNorm2d(c, affine=False)],
    "two norms": lambda c: [nn.BatchNorm2d(c), nn.BatchNorm2d(c)],
    "norm, hardtanh": lambda c: [nn.BatchNorm2d(c), nn.Hardtanh()],
    "norm, relu, norm": lambda c: [nn.BatchNorm2d(c), nn.ReLU(), nn.BatchNorm2d(c)],
    "relu in place": lambda c: [nn.ReLU(inplace=True), nn.BatchNorm2d(c)],
    "scale, norm": lambda c: [LearnedScale(c), nn.BatchNorm2d(c)],
    "norm, dropout": lambda c: [nn.BatchNorm2d(c), nn.Dropout(0.5), nn.Identity()],
    "norm, relu6": lambda c: [nn.BatchNorm2d(c), nn.ReLU6(), nn.BatchNorm2d(c)],
    "norm, activation": lambda c: [nn.BatchNorm2d(c), QActivation("sign")],
    "pool, norm": lambda c: [nn.MaxPool2d(2), nn.BatchNorm2d(c)],
    "norm, pool": lambda c: [nn.BatchNorm2d(c), nn.MaxPool2d(2)],
    "norm, pool, norm": lambda c: [nn.BatchNorm2d(c), nn.MaxPool2d(2), nn.BatchNorm2d(c)],
    "norm, activation, pool": lambda c: [nn.BatchNorm2d(c), QActivation("sign"), nn.MaxPool2d(2)],
    "norm, hardtanh, pool": lambda c: [nn.BatchNorm2d(c), nn.Hardtanh(), nn.MaxPool2d(3, 2, 1)],
    "pool with padding": lambda c: [nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.BatchNorm2d(c)],
}


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
@pytest.mark.parametrize("order", ORDERS)
def test_what_stands_before_a_sign_becomes_a_threshold(order, pad_value):
    model = shaken(Plain(ORDERS[order](32), pad_value=pad_value))
    converted, report = assert_same_bits(model)
    assert outputs(report) == ["bits", "float"]
    pools = sum(isinstance(m, nn.MaxPool2d) for m in model.modules())
    assert sum(isinstance(m, PackedMaxPool2d) for m in converted.modules()) == pools
    left = [type(m) for m in converted.modules() if not list(m.children())]
    assert set(left) <= {lowbit.nn.packed.PackedConv2d, PackedMaxPool2d, AsTrained}


@pytest.mark.parametrize("order", ORDERS)
def test_bits_between_layers_are_the_signs_between_trained_layers(order):
    model = shaken(Plain(ORDERS[order](70), channels=70))
    converted, _ = convert(model)
    seen = {}
    for name, net in (("trained", model), ("packed", converted)):
        net.second.register_forward_pre_hook(
            lambda layer, inputs, name=name: seen.__setitem__(name, inputs[0])
        )
        with torch.no_grad():
            net(integers(SHAPE))
    words = pack_signs(seen["trained"].permute(0, 2, 3, 1))
    assert torch.equal(seen["packed"], words.permute(0, 3, 1, 2))


def test_thresholds_agree_for_every_accumulator_there_is():
    """Every integer from end to end through the trained batch norm, gammas of every kind."""
    norm = nn.BatchNorm2d(64)
    model = shaken(Plain([norm, nn.Hardtanh()], channels=64))
    converted, _ = convert(model)
    t, flip = converted.first.params
    bound = 9 * 32
    v = torch.arange(-bound, bound + 1.0).view(1, 1, -1, 1).expand(1, 64, -1, 1)
    with torch.no_grad():
        trained = model.between(v) < 0
    kinds = torch.stack([norm.weight < 0, norm.weight == 0, norm.weight > 0]).any(1)
    assert bool(kinds.all())
    shape = (1, -1, 1, 1)
    assert torch.equal((v < t.view(shape)) ^ (flip.view(shape) != 0), trained)


ACTIVATIONS = {
    "nothing": nn.Identity,
    "relu": nn.ReLU,
    "prelu": lambda: nn.PReLU(32),
    "one prelu": nn.PReLU,
    "leaky relu": lambda: nn.LeakyReLU(0.3),
    "rprelu": lambda: RPReLU(32),
    "hardtanh": nn.Hardtanh,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_residuals_and_activations_run_inside(activation):
    model = shaken(Residual(ACTIVATIONS[activation]()))
    converted, report = assert_same_bits(model)
    assert outputs(report) == ["both", "float"]
    leaves = [m for m in converted.modules() if not list(m.children())]
    assert all(isinstance(m, PackedLayer) for m in leaves)
    assert report[1].folded == ["bn2", "add"]


@pytest.mark.parametrize(
    "make", [lambda: Maxout(32), lambda: DPReLU(32), lambda: nn.Hardtanh(-2, 2)]
)
def test_what_is_no_step_stays_behind_the_layer(make):
    converted, report = assert_same_bits(shaken(Residual(make())))
    assert outputs(report) == ["float", "float"]
    assert type(converted.act1) is type(make())


def test_no_more_steps_run_inside_than_the_operator_takes():
    activations = [RPReLU(32) for _ in range(4)] + [nn.Hardtanh() for _ in range(6)]
    model = shaken(nn.Sequential(QConv2d(32, 32, 3, bias=False, **SIGN), *activations))
    converted, report = assert_same_bits(model)
    assert len(converted.get_submodule("0").steps) == 16
    assert report[0].folded == [str(i) for i in range(1, 9)]
    assert type(converted.get_submodule("9")) is nn.Hardtanh


def test_a_function_that_turns_twice_gets_no_threshold():
    model = Plain([nn.BatchNorm2d(32), nn.PReLU(32), nn.BatchNorm2d(32)])
    model = shaken(model)
    with torch.no_grad():
        model.between[1].weight.fill_(-1.0)
        model.between[2].running_mean.fill_(0.5)
        model.between[2].weight.fill_(1.0)
        model.between[2].bias.fill_(0.0)
    _, report = assert_same_bits(model)
    assert outputs(report) == ["both", "float"]
    assert "turns more than once" in report[0].why


class Functions(nn.Module):
    def __init__(self, add, relu):
        super().__init__()
        self.conv = QConv2d(32, 32, 3, padding=1, bias=False, **SIGN)
        self.norm = nn.BatchNorm2d(32)
        self.add, self.relu = add, relu

    def forward(self, x):
        return self.relu(self.add(self.norm(self.conv(x)), x))


@pytest.mark.parametrize("add", [operator.add, operator.iadd, torch.add, lambda a, b: a.add(b)])
@pytest.mark.parametrize("relu", [F.relu, torch.relu, lambda a: a.relu(), lambda a: a.relu_()])
def test_functions_and_methods_are_known(add, relu):
    converted, report = assert_same_bits(shaken(Functions(add, relu)))
    assert report[0].folded == ["norm", "add", "relu"]
    assert [type(m).__name__ for m in converted.children()] == ["PackedConv2d"]


class Broadcast(nn.Module):
    """Additions that are no residuals."""

    def __init__(self, kind):
        super().__init__()
        self.conv = QConv2d(32, 32, 3, padding=1, bias=False, **SIGN)
        self.offset = nn.Parameter(torch.randn(1, 32, 1, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.kind = kind

    def forward(self, x):
        y = self.conv(x)
        if self.kind == "parameter":
            return y + self.offset
        if self.kind == "number":
            return y + 1.5
        if self.kind == "mean":
            return y + self.pool(x)
        if self.kind == "itself":
            return y + y
        return self.conv(self.pool(x)) + x


@pytest.mark.parametrize("kind", ["parameter", "number", "mean", "itself", "twice"])
def test_an_addition_that_broadcasts_stays(kind):
    _, report = assert_same_bits(shaken(Broadcast(kind)))
    assert report[0].folded == []


class Readers(nn.Module):
    """A value that two layers, or a layer and the output, read."""

    def __init__(self, second="sign"):
        super().__init__()
        self.conv = QConv2d(32, 32, 3, padding=1, bias=False, **SIGN)
        self.norm = nn.BatchNorm2d(32)
        self.left = QConv2d(32, 32, 1, bias=False, **SIGN)
        self.right = QConv2d(32, 32, 1, bias=False, **{**SIGN, "input_quantization": second})

    def forward(self, x):
        y = self.norm(self.conv(x))
        return self.left(y) + self.right(y)


def test_two_layers_read_the_same_bits():
    _, report = assert_same_bits(shaken(Readers()))
    assert report[0].output == "bits"


def test_layers_with_other_thresholds_read_the_numbers():
    model = shaken(Readers("rsign"))
    with torch.no_grad():
        for parameter in model.right.input_quantization.parameters():
            parameter.normal_(0, 0.5)
    converted, report = assert_same_bits(model)
    assert report[0].output == "both"
    assert (converted.left.packed_input, converted.right.packed_input) == (True, False)


def test_thresholds_of_each_channel_are_folded():
    model = Plain([nn.BatchNorm2d(32)], input_quantization="rsign")
    model = shaken(model)
    with torch.no_grad():
        for parameter in model.second.input_quantization.parameters():
            parameter.normal_(0, 0.7)
    _, report = assert_same_bits(model)
    assert outputs(report) == ["bits", "float"]


@pytest.mark.parametrize(("groups", "expected"), [(2, "float"), (1, "bits")])
def test_groups_whose_words_do_not_align_read_numbers(groups, expected):
    model = Plain([nn.BatchNorm2d(64)], channels=64)
    model.second = QConv2d(64, 32, 3, groups=groups, bias=False, **SIGN)
    _, report = assert_same_bits(shaken(model))
    assert report[0].output == expected


def test_groups_of_whole_words_read_bits():
    model = Plain([nn.BatchNorm2d(128)], channels=128)
    model.second = QConv2d(128, 32, 3, groups=2, bias=False, **SIGN)
    _, report = assert_same_bits(shaken(model))
    assert report[0].output == "bits"


class Flat(nn.Module):
    def __init__(self, channels, flatten=None):
        super().__init__()
        self.conv = QConv2d(32, channels, 3, bias=False, **SIGN)
        self.pool = nn.MaxPool2d(2)
        self.norm = nn.BatchNorm2d(channels)
        self.flatten = flatten
        self.linear = QLinear(channels * 6, 32, **SIGN)

    def forward(self, x):
        x = self.norm(self.pool(self.conv(x)))
        return self.linear(self.flatten(x) if self.flatten else x.flatten(1))


@pytest.mark.parametrize("flatten", [None, nn.Flatten(), lambda x: torch.flatten(x, 1)])
@pytest.mark.parametrize(("channels", "expected"), [(64, "bits"), (128, "bits"), (48, "float")])
def test_an_image_of_whole_words_is_flattened_as_bits(channels, expected, flatten):
    _, report = assert_same_bits(shaken(Flat(channels, flatten)))
    assert report[0].output == expected


class Narrow(nn.Module):
    """Whose linear layer takes rows of an image without a batch: (c, h, w) -> (c, h w)."""

    def __init__(self):
        super().__init__()
        self.conv = QConv2d(32, 64, 3, padding=1, bias=False, **SIGN)
        self.linear = QLinear(64, 16, **SIGN)

    def forward(self, x):
        return self.linear(torch.flatten(self.conv(x), 1))


def test_an_image_without_batch_is_flattened_as_its_example_was():
    x = integers((32, 8, 8))
    _, report = assert_same_bits(Narrow().eval(), x, example=x)
    assert outputs(report) == ["float", "float"]
    packed, _ = convert(Narrow().eval())
    with pytest.raises(ValueError, match=r"takes \(n, 1\) words.*\(1, 64\).*batch axis"):
        packed(x)


class Rows(nn.Module):
    def __init__(self, flat):
        super().__init__()
        self.flat = flat
        self.first = QLinear(64, 40, bias=False, **SIGN)
        self.norm = nn.BatchNorm1d(40)
        self.second = QLinear(40, 24, bias=False, **SIGN)

    def forward(self, x):
        if self.flat:
            x = x.flatten(1)
        return self.second(self.norm(self.first(x)))


def test_a_batch_norm_over_another_axis_is_not_folded():
    """Of (n, 40, 40) it normalises axis 1, and a linear layer's outputs lie on axis 2."""
    _, report = assert_same_bits(shaken(Rows(False)), integers((3, 40, 64)))
    assert outputs(report) == ["float", "float"]
    assert "give example=" in report[0].why


def test_an_example_shows_that_inputs_are_rows():
    x = integers((5, 64))
    _, report = assert_same_bits(shaken(Rows(False)), x, example=x)
    assert outputs(report) == ["bits", "float"]
    _, report = assert_same_bits(shaken(Rows(True)), x)
    assert outputs(report) == ["bits", "float"]


def test_a_norm_without_statistics_stays():
    model = shaken(Plain([nn.ReLU()]))
    model.between = nn.Sequential(nn.BatchNorm2d(32, track_running_stats=False))
    _, report = assert_same_bits(model)
    assert outputs(report) == ["float", "float"]


def test_a_hook_on_a_norm_keeps_it_outside():
    model = shaken(Plain([nn.BatchNorm2d(32)]))
    model.between[0].register_forward_hook(lambda module, inputs, output: output + 1)
    _, report = assert_same_bits(model)
    assert report[0].folded == []


def test_a_layer_that_reads_a_quantized_activation_takes_its_signs():
    model = Plain([nn.BatchNorm2d(32), QActivation("sign"), nn.MaxPool2d(2)])
    model.second = QConv2d(32, 32, 3, padding=1, bias=False, weight_quantization="sign")
    converted, report = assert_same_bits(shaken(model))
    assert outputs(report) == ["bits", "float"]
    assert converted.second.geometry.pad == 0
    assert model.second.input_quantization is None


def test_an_activation_that_is_no_plain_sign_moves_only_from_right_in_front():
    model = Plain([nn.BatchNorm2d(32), QActivation("ste_heaviside")])
    model.second = QConv2d(32, 32, 3, padding=1, bias=False, weight_quantization="sign")
    _, report = assert_same_bits(shaken(model))
    assert [row.packed for row in report] == [True, True]
    model.between.append(nn.MaxPool2d(2))
    _, report = assert_same_bits(shaken(model))
    assert [row.packed for row in report] == [True, False]
    assert "name an input quantizer" in report[1].why


@pytest.mark.parametrize("planes", [2, 3])
def test_what_reads_more_than_signs_reads_numbers(planes):
    q = {"name": "dorefa_input", "bits": planes}
    model = Plain([nn.BatchNorm2d(32)], input_quantization=q)
    converted, report = convert(shaken(model))
    assert outputs(report) == ["float", "float"]
    assert report[1].bits == f"1x{planes}"
    x = integers(SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(converted(x), model(x), rtol=1e-5, atol=1e-4)


def test_a_layer_scaled_by_its_inputs_folds_nothing():
    weight = {"name": "xnor", "act_scale": True}
    model = shaken(Plain([nn.BatchNorm2d(32)], weight_quantization=weight))
    converted, report = convert(model)
    assert outputs(report) == ["float", "float"]
    assert report[0].why == "its output is scaled by its inputs"
    x = integers(SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(converted(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_bias_and_a_scale_join_the_batch_norm():
    model = Plain([nn.BatchNorm2d(32)], weight_quantization="magnitude_aware_sign")
    model.second = QConv2d(32, 32, 3, **{**SIGN, "weight_quantization": "magnitude_aware_sign"})
    converted, report = convert(shaken(model))
    assert converted.second.steps == (lowbit.kernels.AFFINE,)
    assert report[1].folded == ["norm"]
    x = integers(SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(converted(x), model(x), rtol=1e-5, atol=1e-5)


def test_two_poolings_are_not_one():
    pools = [nn.MaxPool2d(2), nn.BatchNorm2d(32), nn.MaxPool2d(2, 1)]
    _, report = assert_same_bits(shaken(Plain(pools)))
    assert report[0].output == "float"


def test_a_pooling_of_what_falls_and_rises_stays():
    """Its sign turns once over the accumulators, but a maximum need not be that of one end."""
    bend = DPReLU(32, positive=1.0, negative=-0.25)
    model = shaken(Plain([bend, nn.MaxPool2d(2), nn.BatchNorm2d(32)]))
    with torch.no_grad():
        bend.positive.fill_(1.0)
        bend.negative.fill_(-0.25)
        bend.alpha.fill_(-280.0)
        bend.eta.fill_(280.0)
        model.between[2].weight.fill_(1.0)
        model.between[2].bias.fill_(0.0)
        model.between[2].running_mean.zero_()
    _, report = assert_same_bits(model)
    assert "rises and falls" in report[0].why


def test_an_activation_that_reads_the_whole_tensor_is_not_tried_number_by_number():
    model = shaken(Plain([nn.BatchNorm2d(32), QActivation("absmax_int8")]))
    _, report = assert_same_bits(model)
    assert report[0].output == "float"


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = QConv2d(32, 32, 3, padding=1, bias=False, **SIGN)
        self.norm = nn.BatchNorm2d(32)

    def forward(self, x):
        return self.norm(self.conv(x)) + x + torch.relu(x)


def test_one_residual_is_added_inside():
    _, report = assert_same_bits(shaken(Twice()))
    assert report[0].folded == ["norm", "add"]


def test_a_layer_may_add_its_own_input():
    """The input is read as bits and as numbers: it comes both ways."""
    model = shaken(nn.Sequential(Twice(), Twice()))
    _, report = assert_same_bits(model)
    assert [row.folded for row in report] == [["0.norm", "add"], ["1.norm", "add"]]


@pytest.mark.parametrize("dims", [1, 3])
def test_other_ranks_are_folded_alike(dims):
    conv, norm = (
        (lowbit.nn.QConv1d, nn.BatchNorm1d) if dims == 1 else (lowbit.nn.QConv3d, nn.BatchNorm3d)
    )
    layers = [conv(32, 32, 3, padding=1, bias=False, **SIGN) for _ in range(2)]
    model = shaken(nn.Sequential(layers[0], norm(32), layers[1], norm(32), nn.ReLU()))
    _, report = assert_same_bits(model, integers((2, 32, *[6] * dims)))
    assert outputs(report) == ["bits", "float"]
    assert report[1].folded == ["3", "4"]


@pytest.mark.parametrize("between", [nn.Identity, lambda: nn.MaxPool2d(2), nn.ReLU])
def test_an_image_without_batch_is_taken_as_before(between):
    layers = [QConv2d(32, 32, 3, padding=1, bias=False, **SIGN) for _ in range(2)]
    model = shaken(nn.Sequential(layers[0], between(), layers[1]))
    _, report = assert_same_bits(model, integers((32, 7, 7)))
    assert outputs(report) == ["bits", "float"]


@pytest.fixture
def default_dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("inputs", ["sign", "rsign", "lsq", "hwgq"])
@pytest.mark.parametrize("default_dtype", [torch.float64, torch.bfloat16], indirect=True)
def test_the_default_dtype_changes_nothing(inputs, default_dtype, tmp_path):
    kinds = {"input_quantization": inputs, "weight_quantization": "sign", "dtype": torch.float32}
    model = nn.Sequential(
        QConv2d(32, 32, 3, padding=1, bias=False, **kinds),
        nn.BatchNorm2d(32, dtype=torch.float32),
        nn.LeakyReLU(0.3),
        QConv2d(32, 32, 3, padding=1, padding_mode="reflect", bias=False, **kinds),
        nn.Flatten(),
        QLinear(32 * 63, 8, **kinds | {"weight_quantization": {"name": "xnor", "act_scale": True}}),
    )
    x = integers(SHAPE).float()
    model(x)
    shaken(model.float())
    packed, _ = convert(model)
    loaded = lowbit.load_packed(lowbit.save_packed(packed, tmp_path / "net.safetensors"))
    with torch.no_grad():
        assert packed(x).dtype == torch.float32
        assert torch.equal(loaded(x), packed(x))
        y = packed(x)
        torch.set_default_dtype(torch.float32)
        usual, _ = convert(model)
        assert torch.equal(y, usual(x))
    for name, tensor in usual.state_dict().items():
        assert packed.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(packed.state_dict()[name], tensor), name
