"""Pictures: what they show is what the network and its log have."""

import csv

import pytest
import torch
from matplotlib.image import imread
from torch import nn

from experiments import _draw, _learning_curves, _panels
from experiments._app import Problem
from experiments.callbacks.pictures import Pictures
from experiments.train import train
from lowbit.nn import QConv2d, QLinear, latent_layers

IMAGE = (1, 8, 8)


def png(path):
    """The pixels of a picture, (height, width, 4); some of them are not white."""
    pixels = imread(path)
    assert pixels.min() < 0.9
    return pixels


def rows(*values, name="val/accuracy"):
    return [{"epoch": epoch, name: value} for epoch, value in enumerate(values)]


def test_the_filters_are_those_of_the_first_layer():
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 5), nn.Conv2d(4, 4, 3))
    name, weight = _panels.first_weight(model, IMAGE)
    assert name == "1"
    assert torch.equal(weight, model[1].weight)
    name, weight = _panels.first_weight(nn.Sequential(nn.Linear(64, 5), nn.Linear(5, 2)), IMAGE)
    assert weight.shape == (5, 1, 8, 8)
    name, weight = _panels.first_weight(nn.Sequential(nn.Conv1d(2, 4, 5)), IMAGE)
    assert weight.shape == (4, 1, 2, 5)
    assert _panels.first_weight(nn.Sequential(nn.Linear(5, 2), nn.Conv2d(3, 4, 5)), IMAGE) is None
    assert _panels.first_weight(nn.ReLU(), IMAGE) is None


def test_filters_of_three_channels_are_colours_and_others_have_a_scale():
    weight = torch.tensor([[1.0, 0.0, -2.0]]).reshape(1, 3, 1, 1)
    figure = _panels.filters("conv", weight)
    (axes,) = figure.axes
    assert axes.images[0].get_array().reshape(-1).tolist() == [0.75, 0.5, 0.0]
    figure = _panels.filters("conv", torch.tensor([[0.5], [-2.0]]).reshape(2, 1, 1, 1))
    *panels, bar = figure.axes
    assert [float(a.images[0].get_array()) for a in panels] == [0.5, -2.0]
    assert {a.images[0].get_clim() for a in panels} == {(-2.0, 2.0)}
    assert bar.get_ylabel() == "latent weight"


def layers(*of):
    return list(latent_layers(nn.Sequential(*of)))


def test_a_sign_map_has_the_signs_of_the_quantized_weight():
    layer = QLinear(3, 2, weight_quantization="sign")
    layer.weight.data = torch.tensor([[1.0, -2.0, 3.0], [-0.1, 0.0, -5.0]])
    figure = _panels.sign_maps(layers(layer))
    (axes,) = figure.axes
    assert axes.images[0].get_array().tolist() == [[1, -1, 1], [-1, 1, -1]]
    assert axes.get_title() == "0\n2 x 3, 50.0 % positive"
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["negative", "positive"]


def test_a_sign_map_of_a_ternary_layer_has_zeros_and_of_a_large_one_is_a_part():
    ternary = QLinear(200, 100, weight_quantization="twn")
    figure = _panels.sign_maps(layers(ternary))
    (axes,) = figure.axes
    shown = axes.images[0].get_array()
    assert shown.shape == (64, 128)
    quantized = ternary.weight_quantization.value(ternary.weight.detach())
    assert torch.equal(torch.tensor(shown), quantized[:64, :128].sign())
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["negative", "0", "positive"]


def test_the_share_near_zero_counts_below_a_tenth_of_the_root_mean_square():
    # Mean square 25: those below 0.5.
    weight = torch.tensor([0.49, -0.51, 0.0, -0.3] + [5.0] * 4)
    weight *= 5 / weight.square().mean().sqrt()
    assert _panels.share_near_zero(weight) == 2 / 8
    assert _panels.share_near_zero(100 * weight) == 2 / 8
    assert _panels.share_near_zero(torch.ones(4)) == 0


def test_a_histogram_holds_all_weights_of_its_layer():
    figure = _panels.latent_histograms(
        layers(QLinear(8, 8, weight_quantization="sign"), nn.Linear(8, 8))
    )
    (axes,) = figure.axes
    bars = [bar.get_height() for bar in axes.patches[1:]]
    assert sum(bars) == pytest.approx(100)
    assert "near 0" in axes.get_title()


def test_pictures_of_many_layers_have_the_first_the_last_and_some_between():
    many = layers(*(QConv2d(2, 2, 1, weight_quantization="sign") for _ in range(30)))
    for figure in (_panels.sign_maps(many), _panels.latent_histograms(many)):
        names = [a.get_title().split("\n")[0].split(":")[0] for a in figure.axes]
        assert len(names) == 12
        assert (names[0], names[-1]) == ("0", "29")
        assert "12 of 30 layers" in figure.get_suptitle()


def test_rates_by_layer_are_the_logged_ones_in_percent():
    logged = [{"epoch": 0, "flips/a": 0.5, "flips/all": 0.4}, {"epoch": 1, "flips/a": 0.25}]
    figure = _panels.by_layer(logged, "flips", "title")
    (axes,) = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {"a": [[1, 0.5], [2, 0.25]], "all layers": [[1, 0.4]]}
    assert axes.yaxis.get_major_formatter()(0.5) in ("50", "50.0")
    assert _panels.by_layer(logged, "cancelled", "title") is None


@pytest.mark.parametrize("count", [1, 3, 7, 8, 40])
def test_lines_have_colours_of_their_own(count):
    assert len({str(colour) for colour in _draw.colours(count)}) == count


def test_a_curve_is_the_mean_over_runs_with_their_deviation_where_all_have_the_epoch():
    drawn = _learning_curves.curve([rows(0.1, 0.5, 0.9), rows(0.3, 0.7)], "val/accuracy")
    assert drawn.epochs == [1, 2]
    assert drawn.mean == pytest.approx([0.2, 0.6])
    assert drawn.std == pytest.approx([0.02**0.5, 0.02**0.5])
    assert _learning_curves.curve([rows(0.1)], "val/accuracy").std is None
    assert _learning_curves.curve([rows(0.1)], "val/loss").epochs == []


def test_the_curves_of_a_run_are_those_of_metrics_csv(tiny, tmp_path):
    tiny("trainer.max_epochs=2", "packed=false",
         "callbacks.curves={_target_: experiments.callbacks.curves.Curves, "
         f"path: {tmp_path}/curves.png, title: x}}")  # fmt: skip
    png(tmp_path / "curves.png")
    with (tmp_path / "run" / "metrics.csv").open() as file:
        saved = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    loss, accuracy = _learning_curves.one_run(saved, "x").axes
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    assert accuracy.lines[1].get_ydata().tolist() == pytest.approx(
        [100 * row["val/accuracy"] for row in saved]
    )
    assert accuracy.get_ylabel() == "accuracy [%]"


def test_curves_are_among_the_callbacks_of_every_run(config):
    assert config("seed=3").callbacks.curves.title == "test, seed 3"


def test_curves_without_their_history_are_refused(tiny_config):
    cfg = tiny_config("callbacks=[default,pictures]", "callbacks.history=null", "debug=quick")
    cfg.callbacks.curves = None
    with pytest.raises(Problem, match=r"callbacks\.pictures=null leaves the picture out"):
        train(cfg)


def test_a_training_leaves_every_picture_and_shows_it_in_tensorboard(tiny, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tiny("callbacks=[default,pictures]", "callbacks.curves=null", "callbacks.pictures.every=1",
         "logger=default", "trainer.max_epochs=2", "packed=false",
         "quantizer.gradient_cancellation_threshold=1.0")  # fmt: skip
    folder = tmp_path / "run"
    names = {"filters", "signs", "latent_weights", "flips", "cancelled"}
    assert {path.name for path in (folder / "pictures").iterdir()} == {f"{n}.png" for n in names}
    for path in (folder / "pictures").iterdir():
        png(path)
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert set(events.Tags()["images"]) == {f"pictures/{name}" for name in names}
    # Four steps an epoch; at the end they are drawn once more.
    assert [image.step for image in events.Images("pictures/flips")] == [4, 8, 8]


def test_a_float_network_has_pictures_of_its_filters_alone(tiny, tmp_path):
    tiny("callbacks=[default,pictures]", "callbacks.curves=null", "quantizer=float", "debug=quick")
    assert [path.name for path in (tmp_path / "run" / "pictures").iterdir()] == ["filters.png"]


def test_pictures_every_no_epochs_are_refused():
    with pytest.raises(ValueError, match="every of Pictures is at least 1"):
        Pictures("x", every=0)


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path):
    figure, _ = _draw.grid(1, 1, 1.0, 1.0, "")
    with pytest.raises(ValueError, match="not supported"):
        _draw.save(figure, tmp_path / "x.nonsense")
    assert not list(tmp_path.iterdir())
