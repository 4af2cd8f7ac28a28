"""The recorded observers: ranges, scales and zero points are equal, bit for bit."""

import warnings

import pytest
import torch

from lowbit import observers
from tests.golden.cases import cases

NUMBERS = ("quant_min", "quant_max", "ch_axis")


def made(case):
    arguments = {key: value for key, value in case.inputs.items() if key != "xs"}
    arguments.update({key: int(arguments[key]) for key in NUMBERS if key in arguments})
    if "reduce_range" in arguments:
        arguments["reduce_range"] = arguments["reduce_range"] == "True"
    return getattr(observers, case.api.removeprefix("observer.") + "Observer")(**arguments)


def observed(case):
    observer = made(case)
    for x in case.inputs["xs"]:
        assert observer(x) is x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return observer, *observer.calculate_qparams()


@pytest.mark.parametrize("case", cases("observer."), ids=lambda case: case.id)
def test_recorded(case):
    if case.error is not None:
        with pytest.raises(ValueError, match=r"reduce_range|NaN"):
            observed(case)
        return
    observer, scale, zero_point = observed(case)
    found = {"min": observer.min_val, "max": observer.max_val}
    found |= {"scale": scale, "zero_point": zero_point}
    for name, value in found.items():
        torch.testing.assert_close(value, case.out[name], rtol=0, atol=0, equal_nan=True)
    assert observer.quant_min == case.out["quant_min"]
    assert observer.quant_max == case.out["quant_max"]


# torch.ao's fused operator has a symmetric scale of its own, max(|min|/128, max/127), which is
# not the one that torch.ao converts with, max(|min|, max)/127.5. Here both are the latter.
OTHER_SCALE = ("fused_obs_fake_quant.pc0.sym1", "fused_obs_fake_quant.pc1.sym1")


@pytest.mark.parametrize("case", cases("fused_moving_avg_obs_fake_quant"), ids=lambda case: case.id)
def test_recorded_fused(case):
    given = case.inputs
    name = "MovingAverage" + ("PerChannel" if given["per_row"] else "") + "MinMaxObserver"
    unit, shape = ("channel" if given["per_row"] else "tensor"), given["symmetric"]
    fake = observers.FusedMovingAvgObsFakeQuantize(
        getattr(observers, name),
        given["quant_min"],
        given["quant_max"],
        averaging_constant=given["averaging_constant"],
        dtype="qint8" if given["quant_min"] < 0 else "quint8",
        qscheme=f"per_{unit}_{'symmetric' if shape else 'affine'}",
    )
    ys = [fake(x) for x in given["xs"]]
    assert torch.equal(fake.activation_post_process.min_val, case.out["min"])
    assert torch.equal(fake.activation_post_process.max_val, case.out["max"])
    assert torch.equal(fake.zero_point, case.out["zero_point"].to(fake.zero_point.dtype))
    if case.id in OTHER_SCALE:
        reach = torch.maximum(-case.out["min"], case.out["max"])
        assert torch.equal(fake.scale, (reach / 127.5).reshape(-1))
        assert ((fake.scale / case.out["scale"] - 1).abs() < 1 / 127).all()
        return
    # The operator divides in double, observers in float32: the last bit of a scale.
    torch.testing.assert_close(fake.scale, case.out["scale"], rtol=2**-23, atol=0)
    for y, recorded in zip(ys, case.out["y"], strict=True):
        torch.testing.assert_close(y, recorded, rtol=2**-22, atol=0)
