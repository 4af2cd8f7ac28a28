"""by_role and by_claim: groups, options, errors, schedulers."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR, LinearLR

from lowbit.nn import QConv2d, QLinear
from lowbit.optim import Bop, CaseOptimizer, by_claim, by_role


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        QConv2d(4, 6, 3, input_quantization="sign", weight_quantization="sign", bias=False),
        nn.Flatten(),
        QLinear(6 * 16, 8, input_quantization="lsq", weight_quantization="sign", bias=False),
        nn.Linear(8, 3),
    )


def groups(optimizer):
    return {group["name"]: group for group in optimizer.param_groups}


def test_roles_override_rate_decay_and_options():
    model = network()
    optimizer = by_role(
        model,
        Adam,
        lr=0.01,
        weight_decay=1e-4,
        latent={"weight_decay": 0.0, "lr": 0.1},
        quantizer={"betas": (0.5, 0.9)},
        normalisation={"weight_decay": 0.0},
    )
    assert type(optimizer) is Adam
    found = groups(optimizer)
    assert list(found) == ["latent", "quantizer", "normalisation", "rest"]
    rates = {name: (group["lr"], group["weight_decay"]) for name, group in found.items()}
    assert rates == {
        "latent": (0.1, 0.0),
        "quantizer": (0.01, 1e-4),
        "normalisation": (0.01, 0.0),
        "rest": (0.01, 1e-4),
    }
    assert found["quantizer"]["betas"] == (0.5, 0.9)
    assert found["rest"]["betas"] == (0.9, 0.999)
    assert found["latent"]["params"] == [model[2].weight, model[4].weight]


def test_a_role_with_its_own_optimizer_makes_a_case_optimizer():
    model = network()
    optimizer = by_role(
        model,
        partial(Adam, betas=(0.8, 0.9)),
        lr=0.01,
        weight_decay=1e-4,
        latent={"optimizer": Bop, "lr": 1e-3, "threshold": 1e-6},
    )
    assert isinstance(optimizer, CaseOptimizer)
    assert [type(o) for o in optimizer.optimizers] == [Bop, Adam]
    latent = groups(optimizer)["latent"]
    assert (latent["lr"], latent["threshold"]) == (1e-3, 1e-6)
    assert "weight_decay" not in latent
    assert groups(optimizer)["rest"]["betas"] == (0.8, 0.9)


def test_the_common_optimizer_is_not_made_where_every_role_has_another():
    model = QLinear(4, 2, bias=False, weight_quantization="sign")
    assert type(by_role(model, Adam, lr=0.1, latent={"optimizer": Bop})) is Bop


def test_empty_roles_make_no_group():
    optimizer = by_role(nn.Linear(3, 2), Adam, lr=0.1)
    assert list(groups(optimizer)) == ["rest"]


def test_frozen_parameters_are_in_no_group():
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert by_role(model, Adam, lr=0.1).param_groups[0]["params"] == [model.weight]


def test_zero_is_a_value():
    optimizer = by_role(nn.Linear(3, 2), Adam, lr=0.1, weight_decay=0.5, rest={"lr": 0.0})
    assert optimizer.param_groups[0]["lr"] == 0.0
    optimizer = by_role(nn.Linear(3, 2), torch.optim.AdamW, lr=0.1)
    assert optimizer.param_groups[0]["weight_decay"] == 0.0


def test_a_role_set_to_none_must_have_no_trainable_parameter():
    model = network()
    with pytest.raises(ValueError, match=r"0\.weight \(rest\), 0\.bias \(rest\), 5\.weight"):
        by_role(model, Adam, lr=0.1, rest=None)
    model[0].requires_grad_(False)
    model[5].requires_grad_(False)
    assert "rest" not in groups(by_role(model, Adam, lr=0.1, rest=None))


def test_claims_by_name_split_a_role():
    model = network()
    claims = [
        {"roles": ["latent", "quantizer", "normalisation"]},
        {"roles": ["rest"], "names": ["*.bias"], "weight_decay": 0.0},
        {"names": ["0.weight", "5.weight"], "lr": 0.5},
    ]
    optimizer = by_claim(model, SGD, 0.1, 1e-3, claims=claims)
    found = groups(optimizer)
    assert list(found) == ["latent+quantizer+normalisation", "rest: *.bias", "0.weight+5.weight"]
    assert found["rest: *.bias"]["params"] == [model[0].bias, model[5].bias]
    assert found["0.weight+5.weight"]["lr"] == 0.5


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        (
            [{"names": ["*"]}, {"roles": ["latent"]}],
            r"'2\.weight' is claimed twice: by '\*' and by 'latent'",
        ),
        ([{"names": ["*.weight"]}], r"0\.bias \(rest\)"),
        ([{"names": ["*"]}, {"names": ["conv1.*"]}], r"no parameter is named 'conv1\.\*'"),
        ([{"roles": ["latents"]}], "no role named 'latents'; the roles: latent, quantizer"),
        ([{"roles": "latent"}], r"'roles' is a list, as in \['latent'\]"),
        ([{"lr": 0.1}], "needs 'roles' or 'names'"),
        ([{"names": ["*"], "glorot": "twice"}], "glorot is true, false or 'squared'; got 'twice'"),
        ([{"names": ["*"], "glorot": True}], r"'4\.input_quantization\.step' has shape \(1,\)"),
        ([{"names": ["*"], "momentun": 0.9}], "SGD has no option 'momentun'.*momentum"),
        ([{"names": ["*"], "lr": -1.0}], "lr is a number of at least 0; got -1.0"),
        ([{"names": ["*"], "lr": math.nan}], "lr is a number of at least 0; got nan"),
        ([{"names": ["*"], "lr": "1e-3"}], "lr is a number of at least 0; got '1e-3'"),
        ([{"names": ["*"], "weight_decay": -1.0}], "weight_decay is a number of at least 0"),
    ],
)
def test_a_wrong_claim_is_named(claims, message):
    with pytest.raises(ValueError, match=message):
        by_claim(network(), SGD, 0.1, claims=claims)


def test_a_repeated_claim_on_the_same_weight_through_two_modules_is_one():
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    optimizer = by_role(nn.Sequential(first, second), SGD, lr=0.1)
    assert len(optimizer.param_groups[0]["params"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": {"_target_": "torch.optim.Adam"}}, "_partial_: true"),
        ({"optimizer": partial(Adam, lr=0.5)}, "lr=0.5 is given inside the optimizer"),
        ({"rest": {"optimizer": partial(Adam, weight_decay=0.5)}}, "weight_decay=0.5 is given"),
        ({"latent": {"names": ["2.*"]}}, "latent is claimed as a whole"),
        ({"latent": {"optimizer": Bop, "weight_decay": 1.0}}, "Bop has no option 'weight_decay'"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        by_role(network(), **{"optimizer": Adam, "lr": 0.1, **arguments})


def test_a_model_without_trainable_parameters_is_refused():
    with pytest.raises(ValueError, match="Flatten has no trainable parameter"):
        by_role(nn.Flatten(), Adam, lr=0.1)


def test_glorot_multiplies_the_rate_of_each_weight():
    model = network()
    optimizer = by_role(model, Adam, lr=0.01, latent={"glorot": True, "lr": 0.5})
    found = groups(optimizer)
    convolution = found["latent, fans 90"]  # 3 * 3 * (4 + 6)
    linear = found["latent, fans 104"]  # 96 + 8
    assert convolution["params"] == [model[2].weight]
    # One over BinaryConnect's W0 = sqrt(1.5 / (fan_in + fan_out)).
    assert convolution["lr"] == pytest.approx(0.5 / math.sqrt(1.5 / (9 * 4 + 9 * 6)))
    assert linear["lr"] == pytest.approx(0.5 / math.sqrt(1.5 / (96 + 8)))
    assert found["rest"]["lr"] == 0.01


def test_glorot_of_a_128_channel_convolution_is_39():
    layer = QConv2d(128, 128, 3, bias=False, weight_quantization="sign")
    rate = by_role(layer, Adam, lr=1.0, latent={"glorot": True}).param_groups[0]["lr"]
    assert rate == pytest.approx(39.19, abs=0.01)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: ExponentialLR(o, 0.9),
        lambda o: CosineAnnealingLR(o, 8),
        lambda o: LinearLR(o, 0.1, 1.0, 4),
        lambda o: LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    ],
    ids=["exponential", "cosine", "warm-up", "lambda"],
)
def test_schedulers_keep_glorots_ratio(make):
    optimizer = by_role(network(), Adam, lr=0.01, latent={"glorot": True})
    scheduler = make(optimizer)
    rates = set()
    for _ in range(5):
        found = groups(optimizer)
        ratio = found["latent, fans 90"]["lr"] / found["rest"]["lr"]
        assert ratio == pytest.approx(math.sqrt(90 / 1.5), rel=1e-6)
        rates.add(found["rest"]["lr"])
        optimizer.step()
        scheduler.step()
    assert len(rates) > 3
