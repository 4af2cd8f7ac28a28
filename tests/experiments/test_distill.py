"""Distillation: the losses are the papers', the teacher stays as it is, and a run needs it."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from experiments._app import Problem
from experiments.recipes import _teacher
from experiments.recipes._matching import attention, attention_match, soft_cross_entropy
from experiments.recipes.distill import Distill

SCORES = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]])
TAUGHT = torch.tensor([[2.0, 0.0, 1.0], [1.0, 1.0, -1.0]])


def test_the_soft_loss_without_temperature_is_the_mean_over_images_of_minus_q_log_p():
    q, p = TAUGHT.softmax(-1), SCORES.softmax(-1)
    expected = -(q * p.log()).sum(-1).mean()
    torch.testing.assert_close(soft_cross_entropy(SCORES, TAUGHT), expected)


def test_a_temperature_softens_both_and_its_gradient_is_that_of_the_divergence():
    scores = SCORES.clone().requires_grad_()
    soft_cross_entropy(scores, TAUGHT, 4.0).backward()
    other = SCORES.clone().requires_grad_()
    p, q = (other / 4).log_softmax(-1), (TAUGHT / 4).softmax(-1)
    (16 * F.kl_div(p, q, reduction="batchmean")).backward()
    torch.testing.assert_close(scores.grad, other.grad)


def test_attention_is_of_mean_squares_over_channels():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # 2 channels, 1 x 2
    torch.testing.assert_close(attention(features), torch.tensor([[1.0, 0.4]]))
    expected = torch.tensor([[5.0, 2.0]]) / math.sqrt(29)
    torch.testing.assert_close(attention(features, "l2"), expected)
    assert attention(torch.zeros(1, 2, 2, 2)).eq(0).all()


@pytest.mark.parametrize(
    ("norm", "expected"),
    [
        ("max", (0.0 + 0.6**2) / 2),
        ("l2", math.hypot(5 / 29**0.5 - 0.5**0.5, 2 / 29**0.5 - 0.5**0.5)),
    ],
)
def test_attention_match_is_zero_for_maps_that_look_alike_whatever_their_channels(norm, expected):
    student = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    alike = 7 * (torch.tensor([[[[5.0, 2.0]]]]).sqrt())
    torch.testing.assert_close(attention_match(student, alike, norm), torch.tensor(0.0))
    elsewhere = torch.ones(1, 3, 1, 2)
    got = attention_match(student, elsewhere, norm)
    torch.testing.assert_close(got, torch.tensor(expected))


class Net(nn.Module):
    """Scores and one feature map; ``first`` is the place."""

    def __init__(self, channels=2, stride=1):
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, stride=stride, padding=1)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(channels, 3)

    def forward(self, x):
        return self.last(self.drop(self.first(x)).mean((2, 3)))


def recipe(student=None, teacher=None, **options):
    teacher = Net(4).eval().requires_grad_(False) if teacher is None else teacher
    made = Distill(
        Net() if student is None else student, 3, lambda m: None, teacher=teacher, **options
    )
    made.log = lambda *a, **k: None
    made.on_train_start()
    return made


def loss_of(made, x, labels):
    torch.manual_seed(0)  # of dropout
    return made.training_step((x, labels), 0)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    torch.manual_seed(1)
    student, teacher = Net(), Net(4).eval()
    x, labels = torch.randn(5, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    one = {"hard": 0.0, "soft": 0.0, "attention": 0.0, "attention_at": ["first"]}
    parts = {
        name: loss_of(recipe(student, teacher, **{**one, name: 1.0}, temperature=3.0), x, labels)
        for name in ("hard", "soft", "attention")
    }
    torch.manual_seed(0)
    scores = student(x)
    torch.testing.assert_close(parts["hard"], F.cross_entropy(scores, labels))
    torch.testing.assert_close(parts["soft"], soft_cross_entropy(scores, teacher(x), 3.0))
    expected = attention_match(student.first(x), teacher.first(x))
    torch.testing.assert_close(parts["attention"], expected)
    whole = {"hard": 0.3, "soft": 0.7, "attention": 30.0, "attention_at": {"first": "first"}}
    got = loss_of(recipe(student, teacher, **whole, temperature=3.0), x, labels)
    torch.testing.assert_close(got, sum(whole[name] * parts[name] for name in parts))


def test_the_teacher_is_no_part_of_the_recipe_and_stays_in_evaluation():
    made = recipe(attention=1.0, attention_at=["first"])
    (teacher,) = made.outside
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    made.train()
    loss = loss_of(made, torch.randn(4, 1, 4, 4), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    assert not teacher.training
    assert all(p.grad is None for p in teacher.parameters())
    assert not [key for key in made.state_dict() if "outside" in key or "teacher" in key]
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    made.on_train_end()
    assert not made.model.first._forward_hooks  # conversion meets none


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"soft": -1.0}, "recipe.soft is a number of at least 0; got -1"),
        ({"soft": 0.0}, "nothing to learn"),
        ({"temperature": 0.0}, "temperature is a number above 0; got 0.0"),
        ({"attention": 1.0}, "give recipe.attention_at, names of modules; .* first, drop, last"),
        ({"attention": 1.0, "attention_at": ["frist"]}, "student has no module 'frist'; .* first"),
        ({"attention": 1.0, "attention_at": {"first": "x"}}, "the teacher has no module 'x'"),
        ({"attention_norm": "sum"}, "max or l2"),
    ],
)
def test_options_that_are_none_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        recipe(**options)


def test_maps_of_other_sizes_are_refused_by_name():
    made = recipe(teacher=Net(4, stride=2).eval(), attention=1.0, attention_at=["first"])
    with pytest.raises(ValueError, match=r"at 'first' the student gives \(2, 2, 4, 4\)"):
        made.training_step((torch.randn(2, 1, 4, 4), torch.tensor([0, 1])), 0)


TEACH = ("recipe=distill", "model.hidden=[24,24]", "trainer.max_epochs=2", "packed=false")


def test_distilled_runs_evaluate_without_their_teacher(tiny_config, tmp_path):
    from omegaconf import OmegaConf

    from experiments.eval import evaluate
    from experiments.train import train

    def run(name, *overrides):
        cfg = tiny_config(*overrides, folder=tmp_path / name)
        metrics = train(cfg)
        (tmp_path / name / ".hydra").mkdir()
        OmegaConf.save(cfg, tmp_path / name / ".hydra" / "config.yaml")
        return metrics, tmp_path / name / "checkpoints" / "best.ckpt"

    _, teacher = run(
        "teacher", "quantizer=float", "trainer.max_epochs=12", "data.signal=0.9",
        "data.normalise=signed", "optimizer.lr=0.01",
    )  # fmt: skip
    metrics, student = run(
        "student", *TEACH, f"recipe.teacher.checkpoint={teacher}", "data.signal=0.9",
        "trainer.max_epochs=15", "optimizer.lr=0.01",
    )  # fmt: skip
    assert metrics["test/accuracy"] > 0.6  # chance is 0.1; from the teacher alone: hard is 0
    header = (tmp_path / "student" / "metrics.csv").read_text().splitlines()[0]
    assert "train/soft" in header
    with pytest.raises(
        Problem, match=r"trained with data\.center=None, and would see other pixels"
    ):
        run("centred", *TEACH, f"recipe.teacher.checkpoint={teacher}", "data.center=train")
    teacher.unlink()
    cfg = OmegaConf.create(
        {
            "checkpoint": str(student), "config": None, "pretrained": None, "save": None,
            "packed": False, "int8": None,
            "output": None, "threads": 1, "data": {}, "calibration": 8, "qconfig": None,
            "trainer": OmegaConf.load(tmp_path / "student" / ".hydra" / "config.yaml").trainer,
        }
    )  # fmt: skip
    assert evaluate(cfg)["test/accuracy"] == metrics["test/accuracy"]
    with pytest.raises(Problem, match="no checkpoint at"):
        run("again", *TEACH, f"recipe.teacher.checkpoint={teacher}")


def data(**changes):
    facts = {"in_channels": 3, "image_size": 32, "num_classes": 10, "normalise": "standard"}
    facts |= {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    return type("Data", (), {**facts, **changes})


def spec(**given):
    from omegaconf import OmegaConf

    empty = {"torchvision": None, "weights": None, "checkpoint": None, "config": None}
    return OmegaConf.create({**empty, **given})


def test_a_teacher_of_torchvision_by_name_or_from_a_file(tmp_path):
    teacher = _teacher.make(spec(torchvision="squeezenet1_1"), data())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not teacher.training
    torch.save(teacher.state_dict(), tmp_path / "weights.pth")
    again = _teacher.make(
        spec(torchvision="squeezenet1_1", weights=str(tmp_path / "weights.pth")), data()
    )
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(teacher(x), again(x))


def test_a_teacher_sees_pixels_normalised_as_it_was_trained():
    from experiments.data._normalise import Normalise

    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    given, wanted = (Normalise(mode, mean, std) for mode in ("signed", "standard"))
    seen = _teacher.Renormalised(nn.Identity(), given, wanted)(given(pixels))
    torch.testing.assert_close(seen, wanted(pixels), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give one of torchvision"),
        ({"torchvision": "resnet18", "checkpoint": "x"}, "give one of torchvision"),
        ({"torchvision": "resnet19"}, "no model named 'resnet19'; near it: .*resnet18"),
        ({"torchvision": "resnet18", "weights": "BEST"}, "DEFAULT, IMAGENET1K_V1"),
        ({"checkpoint": "absent.ckpt"}, "no checkpoint at absent.ckpt"),
    ],
)
def test_a_teacher_that_is_none_is_refused_with_the_way_out(given, message):
    with pytest.raises(Problem, match=message):
        _teacher.make(spec(**given), data())


def test_a_teacher_of_other_classes_is_refused(monkeypatch):
    from torchvision import models

    made = models.squeezenet1_1(weights=None, num_classes=7)
    monkeypatch.setattr(_teacher, "_from_torchvision", lambda *a: made)
    with pytest.raises(Problem, match="the data has 10 classes"):
        _teacher.make(spec(torchvision="squeezenet1_1"), data())


def test_weights_that_cannot_be_fetched_name_their_address(monkeypatch):
    from torchvision import models

    def refuse(*a, **k):
        raise OSError("no network")

    monkeypatch.setattr(models, "get_model", refuse)
    with pytest.raises(Problem, match=r"cannot download https://.*resnet34.*weights=FILE"):
        _teacher.make(spec(torchvision="resnet34", weights="DEFAULT"), data())


def test_result_json_is_of_the_student_alone(tiny, tmp_path):
    tiny(
        *TEACH, "data.in_channels=3", "data.image_size=32",
        "recipe.teacher.torchvision=squeezenet1_1", "recipe.teacher.weights=null",
    )  # fmt: skip
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["parameters"] < 100_000  # squeezenet1_1 alone has 727,626
