"""What observers keep, refuse, save and load."""

import copy
import pickle

import pytest
import torch

from lowbit import observers as o

SEEN = [torch.randn(4, 6, 5) * k for k in (1, 2, 0.5)]
OBSERVERS = [
    o.MinMaxObserver,
    o.MovingAverageMinMaxObserver,
    o.PerChannelMinMaxObserver,
    o.MovingAveragePerChannelMinMaxObserver,
    o.HistogramObserver,
]


def shown(observer, xs=None):
    for x in SEEN if xs is None else xs:
        assert observer(x) is x
    return observer


@pytest.fixture(params=OBSERVERS, ids=lambda cls: cls.__name__)
def observer(request):
    return shown(request.param())


def test_an_empty_input_changes_nothing(observer):
    before = copy.deepcopy(observer.state_dict())
    observer(torch.empty(0, 6, 5))
    assert all(torch.equal(before[key], value) for key, value in observer.state_dict().items())


def test_half_precision_is_seen_exactly():
    x = torch.tensor([-1.5, 70.25], dtype=torch.bfloat16)
    observer = shown(o.MinMaxObserver(), [x])
    assert (observer.min_val, observer.max_val) == (-1.5, x[1].item())
    assert observer.min_val.dtype == torch.float32


def test_copies_and_saved_states_give_the_same_grid(observer):
    scale, zero_point = observer.calculate_qparams()
    loaded = type(observer)()
    loaded.load_state_dict(copy.deepcopy(observer.state_dict()))
    for other in (copy.deepcopy(observer), pickle.loads(pickle.dumps(observer)), loaded):
        again = other.calculate_qparams()
        assert torch.equal(again[0], scale)
        assert torch.equal(again[1], zero_point)


def test_a_grid_does_not_follow_what_is_seen_later(observer):
    scale, _ = observer.calculate_qparams()
    kept = scale.clone()
    shown(observer, [100 * SEEN[0]])
    assert torch.equal(scale, kept)
    assert not torch.equal(observer.calculate_qparams()[0], kept)


def test_a_reset_forgets(observer):
    observer.reset_min_max_vals()
    with pytest.warns(UserWarning, match="seen nothing yet"):
        scale, zero_point = observer.calculate_qparams()
    assert (scale.tolist(), zero_point.tolist()) == ([1.0], [0])
    fresh = shown(type(observer)())
    assert torch.equal(shown(observer).calculate_qparams()[0], fresh.calculate_qparams()[0])


def test_channels_may_lie_on_any_axis():
    x = torch.randn(3, 4, 5)
    for axis in (0, 1, 2, -1):
        observer = shown(o.PerChannelMinMaxObserver(ch_axis=axis), [x])
        rows = x.movedim(axis, 0).flatten(1)
        assert torch.equal(observer.min_val, rows.amin(1))
        assert torch.equal(observer.max_val, rows.amax(1))


def test_the_average_is_of_the_extremes():
    observer = shown(o.MovingAverageMinMaxObserver(averaging_constant=0.25))
    average = SEEN[0].amax()
    for x in SEEN[1:]:
        average = average + 0.25 * (x.amax() - average)
    assert torch.equal(observer.max_val, average)


def test_a_histogram_cuts_outliers_off():
    torch.manual_seed(0)
    x = torch.cat([torch.randn(100_000), torch.tensor([40.0, -40.0])])
    whole = shown(o.MinMaxObserver(quant_min=0, quant_max=255), [x]).calculate_qparams()[0]
    cut = shown(o.HistogramObserver(), [x]).calculate_qparams()[0]
    assert cut < 0.6 * whole


def test_a_histogram_counts_every_element_once():
    observer = shown(o.HistogramObserver(bins=64))
    assert observer.histogram.sum() == sum(x.numel() for x in SEEN)


def test_a_histogram_leaves_infinities_out_and_says_so():
    observer = o.HistogramObserver()
    with pytest.warns(UserWarning, match="infinite"):
        observer(torch.tensor([1.0, torch.inf, -2.0]))
    assert (observer.min_val, observer.max_val) == (-2, 1)
    with pytest.warns(UserWarning, match="infinite"):
        observer(torch.tensor([torch.inf]))
    assert observer.histogram.sum() == 2


@pytest.mark.parametrize(
    ("dtype", "plain", "low", "high", "bits"),
    [
        ("quint8", torch.uint8, 0, 255, 8),
        (torch.int8, torch.int8, -128, 127, 8),
        ("torch.qint32", torch.int32, -(2**31), 2**31 - 1, 32),
        ("quint4x2", torch.uint8, 0, 15, 4),
        ("quint2x4", torch.uint8, 0, 3, 2),
    ],
)
def test_dtypes_of_both_worlds(dtype, plain, low, high, bits):
    observer = o.MinMaxObserver(dtype=dtype)
    found = (observer.dtype, observer.quant_min, observer.quant_max, observer.bits)
    assert found == (plain, low, high, bits)


def test_torchs_own_names_are_taken():
    if not hasattr(torch, "quint8"):
        pytest.skip("this torch has no quantized dtypes")
    observer = o.MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    assert observer.dtype == torch.int8
    assert observer.qscheme == torch.per_tensor_symmetric


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: o.MinMaxObserver(dtype="float8"), "no integer dtype 'float8'"),
        (lambda: o.MinMaxObserver(qscheme="per_channel_affine"), "has the schemes per_tensor"),
        (lambda: o.PerChannelMinMaxObserver(qscheme="per_tensor_affine"), "per_channel_affine"),
        (lambda: o.HistogramObserver(qscheme="per_channel_affine"), "has the schemes"),
        (lambda: o.MinMaxObserver(quant_min=1, quant_max=9), "include 0"),
        (lambda: o.MinMaxObserver(quant_min=0, quant_max=0), "in order"),
        (lambda: o.MinMaxObserver(quant_min=0), "give both"),
        (lambda: o.MinMaxObserver(quant_min=-1, quant_max=9), "among those of uint8, 0 … 255"),
        (lambda: o.MinMaxObserver(is_dynamic=True), "averaging_constant=1"),
        (lambda: o.PerChannelMinMaxObserver(is_dynamic=True), "cannot be dynamic"),
        (lambda: o.HistogramObserver(is_dynamic=True), "cannot be dynamic"),
        (lambda: o.MovingAverageMinMaxObserver(is_dynamic=True), "got 0.01"),
        (lambda: o.FixedQParamsObserver(0.0, 0), "scale=0.0 must be above 0"),
        (lambda: o.FixedQParamsObserver(1.0, 300), "zero_point=300"),
        (lambda: o.FixedQParamsObserver(1.0, 0, is_dynamic=True), "cannot be dynamic"),
    ],
)
def test_what_cannot_be_is_refused_with_words(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    "silent", [o.PlaceholderObserver, o.NoopObserver, o.RecordingObserver, o.ReuseInputObserver]
)
def test_silent_observers_have_no_grid(silent):
    observer = shown(silent())
    with pytest.raises(NotImplementedError, match="use MinMaxObserver"):
        observer.calculate_qparams()


def test_a_recording_keeps_copies():
    observer, x = o.RecordingObserver(), torch.ones(3)
    observer(x)
    x.zero_()
    assert torch.equal(observer.get_tensor_value()[0], torch.ones(3))


def test_fixed_numbers_stay():
    observer = shown(o.FixedQParamsObserver(1 / 256, 3))
    scale, zero_point = observer.calculate_qparams()
    assert (scale.item(), zero_point.item()) == (1 / 256, 3)


def test_factories_settle_arguments():
    made = o.MinMaxObserver.with_args(dtype="qint8").with_args(quant_min=-7, quant_max=7)
    assert (made().quant_min, made().dtype) == (-7, torch.int8)
    assert made() is not made()
    assert made(quant_max=5).quant_max == 5
    numbers = iter([1, 2])
    counted = o.MovingAverageMinMaxObserver.with_callable_args(
        averaging_constant=lambda: next(numbers)
    )
    assert [counted().averaging_constant for _ in range(2)] == [1, 2]
    assert pickle.loads(pickle.dumps(made)) == made
    assert hash(made) == hash(copy.deepcopy(made))
    assert made != made.with_args(quant_max=6)


@pytest.mark.parametrize("version", [1, 2])
def test_states_of_older_versions_load(version):
    observer = shown(o.PerChannelMinMaxObserver())
    state = observer.state_dict()
    old = {f"{key}s" if key != "eps" else key: value for key, value in state.items()}
    if version == 1:
        del old["eps"]
    old = torch.nn.modules.module.OrderedDict(old)
    old._metadata = {"": {"version": version}}
    loaded = o.PerChannelMinMaxObserver()
    loaded.load_state_dict(old)
    assert torch.equal(loaded.min_val, observer.min_val)
    assert torch.equal(loaded.calculate_qparams()[0], observer.calculate_qparams()[0])
