import pytest
import torch

from experiments.data._normalise import Normalise

IMAGES = torch.arange(256, dtype=torch.uint8).reshape(2, 2, 8, 8)


def test_standard_subtracts_the_mean_and_divides_by_the_deviation_of_each_channel():
    out = Normalise("standard", (0.5, 0.25), (0.2, 0.1))(IMAGES)
    expected = IMAGES.double() / 255
    expected[:, 0] = (expected[:, 0] - 0.5) / 0.2
    expected[:, 1] = (expected[:, 1] - 0.25) / 0.1
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("mode", "low", "high"), [("signed", -1, 1), ("unit", 0, 1)])
@pytest.mark.parametrize("max_value", [255, 16])
def test_the_ends_of_the_range(mode, low, high, max_value):
    ends = torch.tensor([0, max_value], dtype=torch.uint8).reshape(2, 1, 1, 1)
    out = Normalise(mode, (0.3,), (0.2,), max_value)(ends)
    torch.testing.assert_close(out.flatten(), torch.tensor([low, high]).float())


def test_an_unknown_mode_names_the_known_ones():
    with pytest.raises(ValueError, match="standard, signed, unit; got 'zero'"):
        Normalise("zero", (0.5,), (0.5,))
