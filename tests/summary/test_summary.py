"""What may be given, what is left alone, what is refused, and what is shown."""

import copy
import csv
import io
import json
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lowbit.models import BinaryNet, MobileNetV2
from lowbit.nn import QConv2d, QLinear
from lowbit.summary import summary
from tests.models._small import FAMILIES

SIGN = {"input_quantization": "sign", "weight_quantization": "sign"}


@pytest.mark.parametrize(("make", "shape"), FAMILIES.values(), ids=FAMILIES)
def test_every_model_has_the_products_that_torch_counts_of_its_float_twin(make, shape):
    with torch.device("meta"):
        twin, model = make().eval(), make(**SIGN)
        with FlopCounterMode(display=False) as counter:
            twin(torch.empty(1, *shape))
    found = summary(model, shape)
    assert found.macs.total == counter.get_total_flops() / 2
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.bytes == sum(t.numel() * t.element_size() for t in model.state_dict().values())


class Two(nn.Module):
    """An image, a table's indices, and an option."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.table = nn.Embedding(10, 4)

    def forward(self, image, index, scale=None):
        y = self.conv(image).mean((2, 3)) + self.table(index)
        return {"y": y if scale is None else y * scale}


FLOAT_AND_LONG = (torch.float32, torch.long)


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ([(3, 8, 8), ()], {"dtype": FLOAT_AND_LONG}),
        ({"index": (), "image": (3, 8, 8)}, {"dtype": FLOAT_AND_LONG[::-1]}),
        ((torch.randn(1, 3, 8, 8), torch.tensor([9])), {}),
        ([(3, 8, 8), torch.tensor([9])], {}),
        ({"image": torch.randn(1, 3, 8, 8), "index": torch.tensor([9]), "scale": (4,)}, {}),
        ([(3, 8, 8), ()], {"dtype": FLOAT_AND_LONG, "device": "meta"}),
    ],
)
def test_inputs_are_shapes_or_tensors_by_place_or_by_name(given, options):
    found = summary(Two(), given, **options)
    assert found.macs.float == 36 * 4 * 27
    assert found["conv"].output == (1, 4, 6, 6)
    assert found["table"].output == (1, 4)


def test_a_number_is_a_shape():
    assert summary(nn.Linear(5, 2), 5)[0].output == (1, 2)


def test_the_dtype_is_that_of_the_model():
    assert summary(nn.Linear(5, 2).double(), (5,))[0].input_bits == 64


def test_a_compiled_model_is_summed_as_the_model():
    model = nn.Sequential(nn.Linear(5, 2))
    assert summary(torch.compile(model), (5,)).as_dict() == summary(model, (5,)).as_dict()


def test_the_course_may_depend_on_values():
    class Depends(nn.Linear):
        def forward(self, x):
            return super().forward(x if float(x.sum()) > 0 else -x)

    assert summary(Depends(5, 2), (5,)).macs.float == 10


def test_the_model_is_left_as_it_was():
    model = BinaryNet(3, 5, 16, width=8, hidden=(32, 32), **SIGN).train()
    model.features[0].eval()
    model.extra = nn.Embedding(5, 3, max_norm=0.1)
    calls = []
    model.features[0].register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(3)
    state = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    attributes = [set(vars(m)) for m in model.modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    random, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    summary(model, (3, 16, 16))
    assert calls  # hooks are part of the model, and run in the copy too
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert [m.training for m in model.modules()] == modes
    assert [set(vars(m)) for m in model.modules()] == attributes
    after = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert after == hooks
    assert all(p.grad is None for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_quantizers_that_start_from_data_have_not_started():
    model = QLinear(6, 4, input_quantization={"name": "lsq", "bits": 2}, weight_quantization="lsq")
    before = copy.deepcopy(model.state_dict())
    summary(model, (6,))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_random_layers_draw_nothing_from_the_users_generator():
    class Noisy(nn.Linear):
        def forward(self, x):
            return super().forward(x + torch.randn_like(x))

    model = Noisy(4, 2)
    torch.manual_seed(5)
    expected = torch.randn(1)
    torch.manual_seed(5)
    summary(model, (4,))
    assert torch.equal(torch.randn(1), expected)


def test_the_layer_that_refuses_its_input_is_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(10, 2))
    with pytest.raises(ValueError, match=r"^2 \(Linear\) refused an input of \(1, 144\)"):
        summary(model, (3, 8, 8))
    with pytest.raises(ValueError, match=r"^0 \(Conv2d\) .*\(1, 2, 3, 8, 8\).*without the batch"):
        summary(model, (2, 3, 8, 8))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_indices_of_the_wrong_dtype_name_the_way_out():
    with pytest.raises(ValueError, match=r"the model \(Embedding\) refused.*dtype=torch\.long"):
        summary(nn.Embedding(3, 4), (5,))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((3, 8, 8), r"Two\.forward takes \(image, index, scale=None\), and 1 input was given"),
        ([(3, 8, 8)] * 4, "4 inputs were given"),
        ({"image": (3, 8, 8), "index": (), "picture": ()}, "3 inputs were .*'picture'"),
        ("3x8x8", r"shape without the batch, such as \(3, 224, 224\).* got '3x8x8'"),
        ((3.0, 8), "got 3.0"),
        ((3, -1, 8), r"got \(3, -1, 8\)"),
        (None, "got None"),
    ],
)
def test_inputs_that_forward_does_not_take_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        summary(Two(), given)


def test_dtypes_are_one_or_as_many_as_inputs():
    with pytest.raises(ValueError, match="3 were given for 2"):
        summary(Two(), [(3, 8, 8), ()], dtype=[torch.float32] * 3)


def test_lazy_scripted_and_uncopyable_models_are_refused():
    with pytest.raises(ValueError, match=r"1 \(LazyLinear\) is lazy .* call the model on data"):
        summary(nn.Sequential(nn.ReLU(), nn.LazyLinear(3)), (4,))
    with pytest.raises(ValueError, match="scripted"):
        summary(torch.jit.script(nn.Linear(2, 2)), (2,))
    model = nn.Linear(2, 2)
    model.kept = model.weight * 2
    with pytest.raises(ValueError, match="called as a copy, and Linear has none"):
        summary(model, (2,))


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3),
        nn.Sequential(QConv2d(64, 64, 3, **SIGN), nn.BatchNorm2d(64)),
        nn.Flatten(),
        QLinear(64 * 16, 8, **SIGN),
    )
    return summary(model, (3, 8, 8))


def test_a_dictionary_goes_into_json_and_its_totals_are_sums(found):
    data = json.loads(json.dumps(found.as_dict()))
    assert [row["name"] for row in data["layers"]] == ["0", "1.0", "1.1", "3"]
    assert data["layers"][1]["output"] == [1, 64, 4, 4]
    for key in ("parameters", "numbers", "bytes", "packed_bytes", "nominal_bytes"):
        assert data["totals"][key] == sum(row[key] for row in data["layers"])
        assert data["totals"][key] == getattr(found, key)
    for kind in ("one_bit", "k_bit", "int8", "float"):
        total = sum(row[f"macs_{kind}"] for row in data["layers"])
        assert data["totals"][f"macs_{kind}"] == total == getattr(found.macs, kind)
    assert data["totals"]["binary_share"] == found.macs.one_bit / found.macs.total
    assert data["totals"]["compression"] == found.float_bytes / found.packed_bytes


def test_csv_has_a_line_for_each_layer(found, tmp_path):
    path = tmp_path / "layers.csv"
    text = found.to_csv(path)
    assert path.read_text(encoding="utf-8") == text == found.to_csv()
    assert list(tmp_path.iterdir()) == [path]
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [line["name"] for line in lines] == [row.name for row in found]
    assert [int(line["bytes"]) for line in lines] == [row.bytes for row in found]
    assert lines[1]["output"] == "1x64x4x4"
    assert lines[1]["kernel"] == found["1.0"].kernel
    assert lines[2]["input_bits"] == ""


def test_text_is_aligned_and_says_the_totals(found):
    lines = str(found).splitlines()
    rule = lines[1]
    heads = lines[0].split("  ")
    assert set(rule) == {"-", " "}
    assert all(len(line) <= len(rule) for line in lines[: len(found) + 4])
    assert [line.split()[0] for line in lines[2 : len(found) + 2]] == ["0", "1.0", "1.1", "3"]
    assert f"{found.macs.one_bit:,}" in lines[3 + len(found)]
    assert any("1-bit MACs" in head for head in heads)
    assert not any("int8 MACs" in head for head in heads)
    assert f"{found.numbers:,} numbers" in str(found)
    assert f"{100 * found.binary_share:.2f} % are binary" in str(found)


def test_a_rich_table_has_the_same_cells(found):
    console = pytest.importorskip("rich.console")
    out = io.StringIO()
    console.Console(file=out, width=200).print(found)
    shown = out.getvalue()
    for row in found:
        assert f"{row.bytes:,}" in shown
        assert row.kernel in shown
    assert f"{found.macs.total:,} multiply-adds" in shown


def test_without_rich_text_works_and_the_table_names_the_package(found, monkeypatch):
    for name in ("rich", "rich.table", "rich.markup"):
        monkeypatch.setitem(sys.modules, name, None)
    assert "QLinear" in str(found)
    with pytest.raises(ModuleNotFoundError, match="pip install rich"):
        found.rich_table()


def test_rows_are_found_by_place_and_by_name(found):
    assert found[1] is found["1.0"]
    assert found[:2] == list(found)[:2]
    assert len(found) == 4
    with pytest.raises(KeyError, match=r"no layer '9'; there are 0, 1\.0, 1\.1, 3"):
        found["9"]


def test_long_names_keep_their_ends():
    model = nn.Sequential()
    model.add_module("a" * 60, nn.Sequential(nn.Linear(2, 2)))
    line = str(summary(model, (2,))).splitlines()[2]
    assert line.split()[0] == "…" + "a" * 33 + ".0"


def test_a_model_without_anything_is_a_table():
    found = summary(nn.Identity(), (2,))
    assert len(found) == 0
    assert found.binary_share == 0
    assert "total" in str(found)


def test_a_float_network_is_itself_when_converted():
    with torch.device("cpu"):
        found = summary(MobileNetV2(3, 5, multiplier=0.1), (3, 32, 32))
    assert found.bytes == found.packed_bytes
    assert found.macs.float == found.macs.total
    assert {row.kernel for row in found} == {"float torch"}
