"""Shared scales: what quantizes a value once the neighbour that set its scale is left in float.

Follows ai-edge-quantizer. A MAX_POOL_2D has the scale of its input, a CONCATENATION gives its
inputs its own scale, a SOFTMAX has the scale that its kernel needs. If such an operator is left in
float, the values around it are quantized by their own ranges, which the quantized model does not
store. These are estimated from the samples, in the way that best reproduces the recorded ranges of
the other values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean, median

from qdebug.arithmetic.affine import QuantScheme, params_from_range
from qdebug.sources.tflite.board.gates import Gate, Gates, Switch
from qdebug.sources.tflite.graph import Graph, Operator

AS_INPUT = frozenset(
    """RESHAPE AVERAGE_POOL_2D SLICE TRANSPOSE STRIDED_SLICE SPLIT PAD MIRROR_PAD SPACE_TO_DEPTH
    MAX_POOL_2D RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR GATHER_ND UNPACK BROADCAST_TO GATHER
    REDUCE_MIN""".split()  # noqa: SIM905
)
AS_OUTPUT = frozenset(
    """SELECT SELECT_V2 DYNAMIC_UPDATE_SLICE CONCATENATION PADV2 MAXIMUM PACK""".split()  # noqa: SIM905
)
FIXED = frozenset(("SOFTMAX", "LOGISTIC", "TANH"))

# Minimum and maximum of a value, each (samples,).
Ends = tuple[Sequence[float], Sequence[float]]

_End = Callable[[Sequence[float]], float]

# The weight of what came before in ai-edge-quantizer's moving average.
_SMOOTHING = 0.95
# Ranges of the same calibration differ by less than this factor.
_SAME = 1.001
# Only a range that is narrower by this factor counts: the samples are not those of the calibration.
_NARROWER = 0.9


def relaxed(gates: Gates, floats: Graph) -> dict[int, frozenset[int]]:
    """Value of the float graph -> operators: while one is in float, the value has its own range.

    Operators are places in `Gates.operators`. Values that never have their own range are left out.
    """
    places = gates.places
    readers: dict[int, list[tuple[Operator, int]]] = {}
    for operator in floats.operators:
        for position, tensor in enumerate(operator.inputs):
            if (operator.index, position) in gates.reads:
                readers.setdefault(tensor, []).append((operator, position))
    found: dict[int, frozenset[int]] = {}
    for tensor in dict.fromkeys([*gates.made, *readers]):
        maker = floats.producer.get(tensor)
        operators = _upstream(tensor, floats, places)
        if maker and maker.op not in AS_INPUT | FIXED and tensor in gates.made:
            layer = gates.made[tensor].layer
            operators |= {
                places[reader.index]
                for reader, position in readers.get(tensor, ())
                if reader.op in AS_OUTPUT and reader.index in places
                if gates.reads[reader.index, position].layer == layer
            }
        if operators:
            found[tensor] = frozenset(operators)
    return found


def _upstream(tensor: int, floats: Graph, places: Mapping[int, int]) -> set[int]:
    """The operators that hand a scale down to a value."""
    found: set[int] = set()
    maker = floats.producer.get(tensor)
    while maker and maker.index in places and maker.op in AS_INPUT | FIXED:
        found.add(places[maker.index])
        inputs = [read for read in maker.inputs if floats.is_computed(read)]
        if maker.op in FIXED or not inputs:
            break
        maker = floats.producer.get(inputs[0])
    return found


def with_own_ranges(
    gates: Gates,
    floats: Graph,
    groups: Mapping[int, frozenset[int]],
    extremes: Mapping[int, Ends],
) -> Gates:
    """The gates, those of the values in `groups` with a second set of parameters.

    `groups` are those of `relaxed`, `extremes` is value -> its minimum and maximum in each sample.
    """
    ranges = _ranges(gates, groups, extremes)
    operators = {operator.index: operator for operator in floats.operators}
    found = dict(gates.params)

    def eased(tensor: int, gate: Gate, but: Switch = frozenset()) -> Gate:
        group = groups.get(tensor, frozenset()) - (but or frozenset())
        if not group or tensor not in ranges:
            return gate
        params = gates.params[gate.layer]
        scheme = QuantScheme(params.dtype, symmetric=params.dtype == "int16")
        own = params_from_range(*ranges[tensor], scheme)
        if own.scale[0] > _NARROWER * params.scale[0]:
            return gate
        name = f"{gate.layer}\0own range"  # no layer has such a name
        found[name] = own
        return replace(gate, own=name, relaxed=group)

    # The gate of an operator in float is open.
    made = {tensor: eased(tensor, gate, gate.switch) for tensor, gate in gates.made.items()}
    reads = {}
    for read, gate in gates.reads.items():
        operator, tensor = operators[read[0]], operators[read[0]].inputs[read[1]]
        shares = tensor in made and made[tensor].layer == gate.layer
        free = shares or operator.op not in AS_OUTPUT
        reads[read] = eased(tensor, gate) if free else gate
    return replace(gates, made=made, reads=reads, params=found)


def _ranges(
    gates: Gates, groups: Mapping[int, frozenset[int]], extremes: Mapping[int, Ends]
) -> dict[int, tuple[float, float]]:
    """Value -> its range, from the samples' extremes as the recorded ranges of others are.

    If the samples are the calibration data, or begin with them, a moving average over them
    reproduces the recorded ranges, and so also the ranges wanted here.
    """

    def ranges(of_low: _End, of_high: _End) -> dict[int, tuple[float, float]]:
        return {tensor: (of_low(low), of_high(high)) for tensor, (low, high) in extremes.items()}

    def distance(ranges: Mapping[int, tuple[float, float]]) -> float:
        return _distance(gates, groups, ranges)

    count = max((len(low) for low, _ in extremes.values()), default=0)
    for samples in range(1, count + 1):
        end = partial(_moving_average, samples=samples)
        calibrated = ranges(end, end)
        if distance(calibrated) < _SAME:
            return calibrated
    return min(ranges(fmean, fmean), ranges(min, max), key=distance)


def _moving_average(ends: Sequence[float], samples: int) -> float:
    """ai-edge-quantizer's, over the first samples."""
    average = ends[0]
    for end in ends[1:samples]:
        average = _SMOOTHING * average + (1 - _SMOOTHING) * end
    return average


def _distance(
    gates: Gates, groups: Mapping[int, frozenset[int]], ranges: Mapping[int, tuple[float, float]]
) -> float:
    """The median factor between ranges and the recorded ones, for values that share no scale."""
    factors = []
    for tensor, gate in gates.made.items():
        low, high = ranges.get(tensor, (0.0, 0.0))
        params, width = gates.params[gate.layer], max(high, 0.0) - min(low, 0.0)
        if tensor not in groups and width > 0 and params.dtype != "int16":
            recorded = float(params.scale[0]) * (params.qmax - params.qmin)
            factors.append(max(recorded / width, width / recorded))
    return median(factors) if factors else 1.0
