"""Random layers of every type, shape, order and health, for comparing figures with the oracle."""

from typing import Any

import numpy as np

from tests import oracle

FLOATS = ("<f2", "<f4", "<f8", ">f4", ">f8")


def random_layer(rng: np.random.Generator, elements: int = 12) -> dict[str, Any]:
    """Fields of one layer; at most `elements` along an axis."""
    dtype = str(rng.choice(list(oracle.RANGES)))
    shape = tuple(int(n) for n in rng.integers(1, elements, rng.integers(0, 5)))
    if rng.random() < 0.03 and shape:
        shape = (*shape[:-1], 0)
    fields: dict[str, Any] = {}
    type_bits = np.dtype(dtype).itemsize * 8
    if dtype != "int32" and rng.random() < 0.3:
        fields["bits"] = int(rng.integers(2, type_bits + 1))
    if rng.random() < 0.3:
        fields["narrow_range"] = True
    if rng.random() < 0.3:
        fields["rounding"] = str(rng.choice(["half_even", "half_away"]))
    qmin, qmax = oracle.code_range(dtype, fields.get("bits"), fields.get("narrow_range", False))

    channels, along = 1, ()
    if shape and 0 not in shape and rng.random() < 0.6:
        axis = int(rng.integers(-len(shape), len(shape)))
        channels, along = shape[axis], [1] * len(shape)
        along[axis] = channels
        if channels > 1:
            fields["axis"] = axis
    scale = 10 ** rng.uniform(-4, 3, channels)
    if rng.random() < 0.5:
        scale = scale.astype(np.float32)
    zero_point = rng.integers(max(qmin, -1000), min(qmax, 1000) + 1, channels)
    fields |= {"scale": scale, "zero_point": zero_point}
    if rng.random() < 0.3:
        fields["zero_point"] = zero_point = zero_point[:1]
    if channels == 1 and rng.random() < 0.5:
        fields["scale"] = scale.reshape(())
    s = scale.astype(np.float64).reshape(along or ())
    z = np.broadcast_to(zero_point, channels).reshape(along or ())

    span = min(qmax - qmin, 5000 if dtype != "int32" else 2**31)
    q = rng.integers(max(qmin, -span), min(qmax, span) + 1, shape).astype(dtype)
    error = rng.uniform(-0.5, 0.5, shape)
    kind = rng.integers(0, 8)
    if kind == 1:  # the same error everywhere, halves among them
        error = np.full(shape, rng.choice([0.0, 0.25, 0.5, 3.0]))
    elif kind == 2:  # far more than rounding
        error = error * 40
    elif kind == 3:  # one code only
        q = np.full(shape, qmax, dtype)
    x = ((q.astype(np.float64) - z) - error) * s
    if kind == 4:  # a ReLU
        x = np.maximum(x, 0)
    elif kind == 5:  # clips
        x = x + 1000 * s * rng.standard_normal(shape) * (rng.random(shape) < 0.1)
    elif kind == 6:  # all floats the same
        x = np.full(shape, x.flat[0] if x.size else 0.0)
    elif kind == 7:  # of another scale than the recorded one
        x = x * rng.choice([0.9, 1.1])
    with np.errstate(over="ignore"):
        x = np.asarray(x).astype(rng.choice(FLOATS))
    if rng.random() < 0.15 and x.size:
        x.reshape(-1)[rng.integers(x.size)] = rng.choice([np.nan, np.inf, -np.inf])
    if rng.random() < 0.3:
        model = x.astype(np.float64) + np.max(s) * rng.standard_normal(shape)
        with np.errstate(over="ignore"):
            fields["model_float"] = np.asarray(model).astype(np.float32)
    if rng.random() < 0.3:
        weighted = x.astype(np.float64) + 0.3 * np.max(s) * rng.standard_normal(shape)
        with np.errstate(over="ignore"):
            fields["weights_float"] = np.asarray(weighted).astype(np.float32)
    order = ">" if rng.random() < 0.2 else "<"
    fields |= {"float": x, "quantized": np.asarray(q).astype(np.dtype(dtype).newbyteorder(order))}
    for field in ("float", "quantized", "model_float", "weights_float"):
        if field in fields and np.ndim(fields[field]) > 1 and rng.random() < 0.25:
            fields[field] = np.asfortranarray(fields[field])
    return fields


def expected(fields: dict[str, Any]) -> dict[str, Any]:
    """The oracle's figures of a layer."""
    codes = fields["quantized"]
    return oracle.figures(
        fields["float"],
        codes.astype(codes.dtype.newbyteorder("=")),
        fields["scale"],
        fields["zero_point"],
        fields.get("axis"),
        fields.get("bits"),
        fields.get("narrow_range", False),
        fields.get("model_float"),
        fields.get("weights_float"),
        fields.get("rounding", "half_away"),
    )


def large_layer(rng: np.random.Generator, elements: int, **more: Any) -> dict[str, Any]:
    """A layer of so many elements, in little memory."""
    x = rng.normal(size=elements).astype(np.float16)
    codes = np.clip(np.rint(x / np.float16(0.03)), -128, 127).astype(np.int8)
    return {"float": x, "quantized": codes, "scale": np.float16(0.03), **more}
