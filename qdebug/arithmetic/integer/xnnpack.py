"""Additions and requantizations as XNNPACK computes them: in fixed-point forms of its own.

Its other operators multiply in float32 (`Arithmetic("float")`). Source: the parameters that XNNPACK
derives in ``src/microparams-init.c``, and its scalar microkernels for int8 and uint8.
"""

from typing import Literal

import numpy as np

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.integer.codes import Activation, Codes, Computed, limits
from qdebug.arithmetic.integer.multiplier import Int64Array

_ADD_BITS = 20  # of the larger multiplier of a sum, behind its leading bit
_CONVERT_BITS = 8  # fraction bits of a requantization's multiplier

# Ratios of input to output scale for which it has these operators; kernels of TensorFlow Lite's
# own compute the others.
ADD_RATIOS = (2.0**-10, 2.0**8)
CONVERT_RATIOS = (2.0**-8, 2.0**7)


def add(
    left: Codes,
    right: Codes,
    output: QuantParams,
    *,
    sign: Literal[1, -1] = 1,
    activation: Activation = "NONE",
) -> Computed:
    """Sum left + sign * right of two tensors, which broadcast; one rounding shift for both.

    >>> left = Codes(np.array([10], np.int8), QuantParams.of(0.5))
    >>> right = Codes(np.array([4], np.int8), QuantParams.of(0.25))
    >>> add(left, right, QuantParams.of(1.0)).codes
    array([6], dtype=int8)
    """
    ratios = [_ratio(codes, output) for codes in (left, right)]
    shift = _ADD_BITS + 1 - int(np.frexp(max(ratios))[1])
    m_left, m_right = (int(np.rint(np.ldexp(ratio, shift))) for ratio in ratios)
    total = left.centred * m_left + sign * right.centred * m_right
    return _coded((total + (1 << (shift - 1))) >> shift, output, activation)


def requantize(x: Codes, output: QuantParams, *, negative: float = 1.0) -> Computed:
    """The codes in another scale; `negative` is a further factor of floats below 0 (leaky ReLU).

    The multiplier has 8 fraction bits only, so codes may be a step off.

    >>> x = Codes(np.array([100, -100], np.int8), QuantParams.of(0.5))
    >>> requantize(x, QuantParams.of(0.7)).codes
    array([ 71, -71], dtype=int8)
    """
    ratio, centred = _ratio(x, output), x.centred
    above, below = (
        int(np.rint(np.float32(1 << _CONVERT_BITS) * ratio * np.float32(factor)))
        for factor in (1.0, negative)
    )
    total = centred * np.where(centred >= 0, above, below)
    return _coded((total + (1 << (_CONVERT_BITS - 1))) >> _CONVERT_BITS, output)


def _ratio(x: Codes, output: QuantParams) -> np.float32:
    return np.float32(x.scale) / np.float32(output.scale[0])


def _coded(centred: Int64Array, output: QuantParams, activation: Activation = "NONE") -> Computed:
    codes = np.clip(centred + int(output.zero_point[0]), *limits(output, activation))
    return Computed(codes.astype(output.dtype))
