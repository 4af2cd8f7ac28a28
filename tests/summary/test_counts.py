"""Numbers and multiply-adds, against published summaries and against sums done by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lowbit.models import BinaryDenseNet, DoReFaAlexNet, QuickNet, RealToBinaryNet, ResNet
from lowbit.nn import QActivation, QConv2d, QConvTranspose2d, QEmbedding, QLinear
from lowbit.summary import Macs, summary

SIGN = {"input_quantization": "sign", "weight_quantization": "sign"}
ZOO = {"input_quantization": "ste_sign", "weight_quantization": "sign"}
DOREFA = {
    "input_quantization": {"name": "dorefa_input", "bits": 2},
    "weight_quantization": "dorefa_weight",
}
BIREAL = {"stem": "imagenet", "downsample": "pool_float"}
RESNET_E = {**BIREAL, "stem": "imagenet_bn", "stem_activation": "relu", "head": "relu"}
MIB = 2**20


def on_meta(make, **options):
    with torch.device("meta"):
        return make(num_classes=1000, **options)


# tests/snapshots/model_summaries/ of github.com/larq/zoo: model size, float-32 equivalent (both in
# MiB) and the ratio of MACs that are binarized, or with 2-bit inputs "ternarized".
@pytest.mark.parametrize(
    ("make", "options", "size", "float32", "ratio"),
    [
        (ResNet, {**ZOO, **RESNET_E}, 4.00, 44.59, 0.9240),
        (BinaryDenseNet, {**ZOO, "depth": 28, "stem": "imagenet"}, 4.04, 19.58, 0.9466),
        (RealToBinaryNet, {**ZOO, "stem": "imagenet"}, 5.13, 45.73, 0.9239),
        (DoReFaAlexNet, {**DOREFA, "groups": 1}, 22.80, 238.02, 0.9590),
    ],
    ids=["ResNetE18", "BDN28", "R2B", "DoReFaNet"],
)
def test_larqs_sizes_and_ratios(make, options, size, float32, ratio):
    found = summary(on_meta(make, **options), (3, 224, 224))
    assert round(found.nominal_bytes / MIB, 2) == size
    assert round(found.float_bytes / MIB, 2) == float32
    low_bit = found.macs.one_bit + found.macs.k_bit
    assert round(low_bit / found.macs.total, 4) == ratio
    if make is not DoReFaAlexNet:
        assert round(found.binary_share, 4) == ratio


def test_quicknet_has_larqs_size_and_products():
    found = summary(on_meta(QuickNet, **ZOO), (3, 224, 224))
    assert found.numbers == 13_234_088
    assert round(found.nominal_bytes / MIB, 2) == 4.17
    assert round(found.macs.one_bit / 1e6, 1) == 1849.7
    assert round(found.macs.float / 1e6, 1) == 29.7


def test_a_convolution_multiplies_each_weight_at_each_place():
    layer = nn.Conv2d(6, 8, (3, 5), stride=2, padding=1, groups=2)
    found = summary(layer, (6, 11, 13))
    weights, places = 8 * 3 * 3 * 5, 6 * 6
    assert found.macs == Macs(float=weights * places)
    assert found[0].output == (1, 8, 6, 6)
    assert found.parameters == weights + 8


def test_a_transposed_convolution_multiplies_each_weight_for_each_input():
    layer = QConvTranspose2d(6, 8, 3, stride=2, bias=False, **SIGN)
    found = summary(layer, (6, 5, 7))
    assert found.macs == Macs(one_bit=6 * 8 * 9 * 5 * 7)


def test_a_linear_layer_multiplies_each_weight_for_each_row():
    assert summary(nn.Linear(5, 7), (3, 4, 5)).macs.float == 12 * 35


def test_an_image_without_a_batch_counts_as_with_one():
    layer = QConv2d(4, 8, 3, padding=1, **SIGN)
    assert summary(layer, torch.randn(4, 6, 6)).macs == summary(layer, (4, 6, 6)).macs


def test_example_tensors_count_with_their_batch():
    layer = nn.Linear(5, 7)
    assert summary(layer, torch.randn(10, 5)).macs.float == 10 * 35


@pytest.mark.parametrize(
    ("inputs", "weights", "kind"),
    [
        ("sign", "sign", "one_bit"),
        ("sign", "twn", "k_bit"),
        ({"name": "dorefa_input", "bits": 4}, "dorefa_weight", "k_bit"),
        ({"name": "int_k", "bits": 8}, {"name": "int_k", "bits": 4}, "int8"),
        ("sign", None, "float"),
        (None, "sign", "float"),
        (None, None, "float"),
    ],
)
def test_products_go_to_the_wider_operand(inputs, weights, kind):
    layer = QLinear(6, 4, input_quantization=inputs, weight_quantization=weights)
    found = summary(layer, (6,))
    assert found.macs == Macs(**{kind: 24})
    row = found[0]
    assert row.input_bits == (32 if inputs is None else layer.input_quantization.bits)
    assert row.weight_bits == (32 if weights is None else layer.weight_quantization.bits)
    assert row.nominal_bytes == 24 * row.weight_bits / 8 + 4 * 4


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_a_recurrent_layer_multiplies_each_matrix_at_each_step(kind, gates):
    model = kind(5, 3, num_layers=2, bidirectional=True, batch_first=True)
    steps = 7
    matrices = gates * 3 * 2 * ((5 + 3) + (6 + 3))
    assert summary(model, (steps, 5)).macs.float == steps * matrices
    packed = nn.utils.rnn.pack_sequence([torch.randn(4, 5), torch.randn(2, 5)])

    class Ragged(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = model

        def forward(self, x):
            return self.rnn(packed)[0].data

    assert summary(Ragged(), (1,)).macs.float == 6 * matrices


def test_attention_counts_projections_and_products():
    length, width, heads = 6, 8, 2
    model = nn.TransformerEncoderLayer(width, heads, 16, batch_first=True)
    found = summary(model, (length, width))
    projections = length * 4 * width * width
    scores_and_values = 2 * heads * length * length * (width // heads)
    feed_forward = length * 2 * width * 16
    assert found.macs.float == projections + scores_and_values + feed_forward
    assert found.parameters == sum(p.numel() for p in model.parameters())


def test_tables_are_looked_up_and_multiply_nothing():
    found = summary(QEmbedding(10, 64, weight_quantization="sign"), (3,), dtype=torch.long)
    assert found.macs.total == 0
    assert (found[0].input_bits, found[0].weight_bits) == (None, 1)
    assert found.nominal_bytes == 10 * 64 / 8


class Called(nn.Module):
    """One layer twice, the table of an embedding as a weight, and functions."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.first = nn.Linear(4, 9, bias=False)
        self.first.weight = self.table.weight
        self.again = QLinear(9, 9, **SIGN)
        self.kernel = nn.Parameter(torch.randn(2, 1, 3))
        self.register_buffer("constant", torch.randn(9, 5))

    def forward(self, indices):
        x = self.again(self.again(self.first(self.table(indices))))
        y = F.conv1d(x, self.kernel)
        return y.mean(1) @ y.transpose(1, 2)[:, :, :1], x @ self.constant


@pytest.fixture(scope="module")
def called():
    return summary(Called(), (1,), dtype=torch.long)


def test_a_layer_called_twice_has_its_products_twice_and_its_parameters_once(called):
    row = called["again"]
    assert (row.calls, row.macs, row.parameters) == (2, Macs(one_bit=162), 90)


def test_a_shared_weight_counts_where_it_comes_first(called):
    assert called["table"].parameters == 36
    assert (called["first"].parameters, called["first"].bytes) == (0, 0)
    assert called["first"].nominal_bytes == 0
    assert called["first"].macs.float == 36
    assert called.parameters == sum(p.numel() for p in Called().parameters())


def test_a_function_on_a_weight_has_a_row_with_the_weight(called):
    row = called["kernel"]
    assert (row.kind, row.parameters, row.bytes) == ("convolution", 6, 24)
    assert row.macs.float == 2 * 3 * 7
    assert row.output == (1, 2, 7)


def test_a_constant_that_is_multiplied_is_a_number_and_no_parameter(called):
    row = called["constant"]
    assert (row.kind, row.parameters, row.numbers, row.macs.float) == ("linear", 0, 45, 45)


def test_a_product_of_activations_has_a_row(called):
    assert called["matmul"].macs.float == 7
    assert called["matmul"].parameters == 0


def test_a_function_on_the_weight_of_a_layer_leaves_it_to_the_layer():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return F.linear(x, self.fc.weight) + self.fc(x)

    found = summary(Reads(), (4,))
    assert [row.name for row in found] == ["fc.weight", "fc"]
    assert [row.macs.float for row in found] == [12, 12]
    assert [row.parameters for row in found] == [0, 15]


def test_a_batch_norm_without_parameters_has_two_numbers_a_channel():
    found = summary(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False)), (3, 2, 2))
    assert (found["1"].numbers, found["1"].parameters) == (8, 0)


def test_quantizers_own_parameters_belong_to_their_layer():
    layer = QConv2d(3, 4, 1, input_quantization="rsign", weight_quantization="sign")
    found = summary(nn.Sequential(layer), (3, 2, 2))
    assert [row.name for row in found] == ["0"]
    assert found.parameters == 3 * 4 + 4 + 3


def test_half_precision_numbers_take_two_bytes():
    found = summary(nn.Linear(4, 3).bfloat16(), (4,))
    assert (found.bytes, found.nominal_bytes) == (30, 30)
    assert (found[0].input_bits, found[0].weight_bits) == (16, 16)
    assert found.macs == Macs(float=12)


def test_operations_count_64_binary_products_as_one():
    model = nn.Sequential(QLinear(64, 32, bias=False, **SIGN), nn.Linear(32, 3))
    assert summary(model, (64,)).operations == 32 + 96


# Billions of multiply-adds that torchvision publishes beside its weights.
@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("resnet18", "ResNet18_Weights"),
        ("vit_b_16", "ViT_B_16_Weights"),
        ("swin_t", "Swin_T_Weights"),
        ("efficientnet_b0", "EfficientNet_B0_Weights"),
    ],
)
def test_torchvisions_networks_have_the_published_products(name, weights):
    models = pytest.importorskip("torchvision.models")
    published = getattr(models, weights).IMAGENET1K_V1.meta
    with torch.device("meta"):
        found = summary(getattr(models, name)(), (3, 224, 224))
    assert found.parameters == published["num_params"]
    assert round(found.macs.total / 1e9, 3) == published["_ops"]


class Behind(nn.Module):
    """A layer behind a quantizer and what hands on its values; a module that takes no tensor."""

    def __init__(self, *between: nn.Module) -> None:
        super().__init__()
        self.number = Number()
        self.quantizer = QActivation({"name": "dorefa_input", "bits": 2})
        self.between = nn.Sequential(*between)
        self.layer = QLinear(16, 8, bias=False, weight_quantization="sign")

    def forward(self, x):
        return self.layer(self.between(self.quantizer(x))) * self.number(2)


class Number(nn.Module):
    def forward(self, n: int) -> int:
        return n


@pytest.mark.parametrize(
    ("between", "shape", "bits"),
    [
        ([], (16,), 2),
        ([nn.Dropout(0.5)], (16,), 2),
        ([nn.Dropout(0.5), nn.Identity()], (16,), 2),
        ([nn.MaxPool2d(2), nn.Flatten()], (4, 4, 4), 2),
        ([nn.AvgPool2d(2), nn.Flatten()], (4, 4, 4), 32),  # means are other values
        ([nn.ReLU()], (16,), 32),
    ],
)
def test_a_layer_reads_the_bits_that_a_quantizer_in_front_made(between, shape, bits):
    row = summary(Behind(*between), shape)["layer"]
    assert (row.input_bits, row.weight_bits) == (bits, 1)
    assert (row.macs.k_bit, row.macs.float) == ((128, 0) if bits == 2 else (0, 128))
