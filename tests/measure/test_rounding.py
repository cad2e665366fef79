"""A layer's own rounding is what its best codes are made with."""

import numpy as np
import pytest

from qdebug.advise.whatif import explore
from qdebug.arithmetic.affine import QuantParams, QuantScheme, Rounding, params_from_range, quantize
from qdebug.errors import FieldError
from qdebug.measure.metrics import Metrics, layer_metrics, layers_metrics
from qdebug.run.session import Session
from tests.visits import ArraySource, statistics_of

pytestmark = pytest.mark.usefixtures("both_kernels")

TIES = np.arange(-50, 50) + 0.5  # every float lies half a step from two codes


def figures(made_with: Rounding, read_with: Rounding) -> Metrics:
    codes = quantize(TIES, QuantParams.of(1.0, rounding=made_with))
    params = QuantParams.of(1.0, rounding=read_with)
    return layer_metrics(statistics_of(TIES, codes, params), params)


@pytest.mark.parametrize("rounding", ["half_away", "half_even"])
def test_codes_made_with_the_recorded_rounding_carry_no_error(rounding: Rounding) -> None:
    found = figures(rounding, rounding)
    assert found.rmse_scale == found.quantizer_rmse_scale == 0.5
    assert found.carried_rmse_scale == 0


def test_codes_made_with_the_other_rounding_are_a_step_off_at_every_second_tie() -> None:
    for made_with, read_with in (("half_away", "half_even"), ("half_even", "half_away")):
        found = figures(made_with, read_with)  # type: ignore[arg-type]
        assert found.carried_rmse_scale == pytest.approx(np.sqrt(0.5))


def test_range_waste_of_layers_of_both_roundings_is_of_their_own_codes() -> None:
    roundings: list[Rounding] = ["half_away", "half_even", "half_away"]
    params = [QuantParams.of(1.0, 0, "uint8", rounding=rounding) for rounding in roundings]
    x = np.array([0.5, 100.5])
    found = layers_metrics([(statistics_of(x, quantize(x, each), each), each) for each in params])
    assert [m.range_waste_low for m in found] == [1 / 255, 0, 1 / 255]
    assert [m.range_waste_high for m in found] == [154 / 255, 155 / 255, 154 / 255]


def test_a_scheme_hands_its_rounding_on() -> None:
    assert params_from_range(-1, 1, QuantScheme(rounding="half_even")).rounding == "half_even"


def test_what_if_rounds_as_the_layer_does() -> None:
    params = QuantParams.of(1.0, rounding="half_even")
    codes = quantize(TIES, params)
    report, what_ifs = explore(Session(ArraySource(TIES, codes, params)), ["layer"])
    assert report.layers[0].rounding == "half_even"
    found = what_ifs["layer"]
    every = [found.recorded, *found.alternatives]
    assert {each.params.rounding for each in every} == {"half_even"}
    assert found.recorded.metrics.mean_error == 0  # away from zero it is, too; by luck of the sign
    assert found.recorded.metrics.outward_error_scale == found.total.outward_error_scale == 0
    assert found.recorded.metrics.carried_rmse_scale == 0


def test_another_rounding_is_an_error() -> None:
    with pytest.raises(FieldError) as caught:
        QuantParams.of(1.0, rounding="floor\n")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "field 'rounding': found 'floor\\n', expected half_away or half_even"
    )
