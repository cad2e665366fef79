"""Every figure of a layer written the slow, obvious way: float64, whole arrays, nothing shared.

The formulas are those of docs/metrics.md; none of qdebug's own code is used.
"""

import math

import numpy as np

RANGES = {"int8": 8, "uint8": 8, "int16": 16, "uint16": 16, "int32": 32}


def code_range(dtype, bits=None, narrow_range=False):
    bits = bits or RANGES[dtype]
    low = 0 if dtype.startswith("u") else -(2 ** (bits - 1))
    return low + (1 if narrow_range else 0), low + 2**bits - 1


def round_half_away(t):
    """Half away from zero by comparing with the two neighbours, not by adding a half."""
    below, above = np.floor(t), np.ceil(t)
    to_below, to_above = t - below, above - t
    nearest = np.where(to_below < to_above, below, above)
    return np.where(to_below == to_above, np.where(t < 0, below, above), nearest)


def ideal_codes(x, scale, zero_point, qmin, qmax, rounding="half_away"):
    rounded = np.rint(x / scale) if rounding == "half_even" else round_half_away(x / scale)
    return np.clip(rounded + zero_point, qmin, qmax)


def clipped_error_share(x, best, s, z, qmin, qmax):
    error = (((best - z) * s - x) / s) ** 2
    outside = (x < (qmin - z) * s - s / 2) | (x > (qmax - z) * s + s / 2)
    return error[outside].sum() / error.sum() if error.sum() > 0 else None


def figures(
    x,
    q,
    scale,
    zero_point=0,
    axis=None,
    bits=None,
    narrow_range=False,
    model_float=None,
    weights_float=None,
    rounding="half_away",
):
    """All figures as a dictionary; None where a figure cannot be had."""
    qmin, qmax = code_range(q.dtype.name, bits, narrow_range)
    x = np.asarray(x, np.float64)
    scale, zero_point = np.atleast_1d(scale).astype(float), np.atleast_1d(zero_point).astype(float)
    if axis is None or max(scale.size, zero_point.size) == 1:
        axis = None
        s, z = np.full(x.shape, scale[0]), np.full(x.shape, zero_point[0])
        channels = [np.ones(x.shape, bool)]
    else:
        shape = [1] * x.ndim
        shape[axis] = x.shape[axis]
        s = np.broadcast_to(np.broadcast_to(scale, x.shape[axis]).reshape(shape), x.shape)
        z = np.broadcast_to(np.broadcast_to(zero_point, x.shape[axis]).reshape(shape), x.shape)
        index = np.broadcast_to(np.arange(x.shape[axis]).reshape(shape), x.shape)
        channels = [index == c for c in range(x.shape[axis])]
    finite = np.isfinite(x)
    out = {"num_elements": int(finite.sum()), "non_finite": int((~finite).sum())}
    low, high = [], []
    for channel in channels:
        here = channel & finite
        if here.any():
            ends = np.array([x[here].min(), x[here].max()])
            ends = ideal_codes(ends, s[here][0], z[here][0], qmin, qmax, rounding)
            low.append((ends[0] - qmin) / (qmax - qmin))
            high.append((qmax - ends[1]) / (qmax - qmin))
    m = None if model_float is None else np.asarray(model_float, np.float64)
    inherited = None if m is None else int((~finite & np.isfinite(m)).sum())
    m = None if m is None else m[finite]
    w = None if weights_float is None else np.asarray(weights_float, np.float64)[finite]
    x, q, s, z = x[finite], q[finite].astype(np.float64), s[finite], z[finite]
    n = x.size
    if n == 0:
        return out
    d = (q - z) * s
    e = d - x
    best = ideal_codes(x, s, z, qmin, qmax, rounding)
    out |= {
        "mean_error": e.mean(),
        "mean_error_scale": (e / s).mean(),
        "outward_error_scale": (np.sign(x) * e / s).mean(),
        "stddev": e.std(),
        "max_abs_error": np.abs(e).max(),
        "max_abs_error_scale": np.abs(e / s).max(),
        "mse": (e**2).mean(),
        "rmse": math.sqrt((e**2).mean()),
        "rmse_scale": math.sqrt(((e / s) ** 2).mean()),
        "rmse_scale_expected": math.sqrt(1 / 12) * math.sqrt(1 - (x == 0).mean()),
        "rmse_scale_stderr": math.sqrt(1 / 15) / 2 / math.sqrt(n),
        "times_expected": None,  # with one step a channel, rmse_scale says the same
        "times_expected_stderr": None,
        "quantizer_rmse_scale": math.sqrt(((((best - z) * s - x) / s) ** 2).mean()),
        "carried_rmse_scale": math.sqrt(((q - best) ** 2).mean()),
        "clipped": ((x < (qmin - z) * s - s / 2) | (x > (qmax - z) * s + s / 2)).mean(),
        "clipped_error_share": clipped_error_share(x, best, s, z, qmin, qmax),
        "saturated": ((q == qmin) | (q == qmax)).mean(),
        "float_min": x.min(),
        "float_max": x.max(),
        "float_mean": x.mean(),
        "float_std": x.std(),
        "float_mean_abs": np.abs(x).mean(),
        "quantized_min": int(q.min()),
        "quantized_max": int(q.max()),
    }
    if (bits or RANGES.get(str(q.dtype), 0)) <= 16 and qmax - qmin <= 2**16:
        out |= {
            "range_waste": np.mean(low) + np.mean(high),
            "range_waste_low": np.mean(low),
            "range_waste_high": np.mean(high),
        }
    if (x**2).sum() > 0 and (e**2).sum() > 0:
        out["sqnr_db"] = 10 * math.log10((x**2).sum() / (e**2).sum())
    signal = x != 0
    if signal.any():
        out["lost"] = (q == z)[signal].mean()
        small = signal & (np.abs(q - z) <= 4)
        out["small"] = small.sum() / signal.sum()
    if (x**2).sum() > 0 and (d**2).sum() > 0:
        out["cosine_similarity"] = (x * d).sum() / math.sqrt((x**2).sum() * (d**2).sum())
    if x.min() < x.max() and q.min() < q.max():
        xc, qc = x - x.mean(), q - q.mean()
        out["fit_scale"] = (xc * qc).sum() / (qc**2).sum()
        out["fit_zero_point"] = q.mean() - x.mean() / out["fit_scale"]
        if axis is not None:
            out["fit_rmse_scale"] = None
    if axis is None and "fit_scale" in out:
        line = out["fit_scale"] * (q - out["fit_zero_point"])
        out["fit_rmse_scale"] = math.sqrt(((x - line) ** 2).mean()) / abs(out["fit_scale"])
    if w is not None and np.isfinite(w).any():
        known = np.isfinite(w)
        ideal = ideal_codes(w[known], s[known], z[known], qmin, qmax, rounding)
        change = (w[known] - x[known]) / s[known]
        out["weights_rmse_scale"] = math.sqrt((change**2).mean())
        out["arithmetic_rmse_scale"] = math.sqrt(((q[known] - ideal) ** 2).mean())
    if m is not None and np.isfinite(m).any():
        known = np.isfinite(m)
        m, d, x, s = m[known], d[known], x[known], s[known]
        out["model_rmse_scale"] = math.sqrt((((d - m) / s) ** 2).mean())
        out["model_min"], out["model_max"] = m.min(), m.max()
        z = z[known]
        low, high = (qmin - z) * s - s / 2, (qmax - z) * s + s / 2
        out["model_clipped"] = ((m < low) | (m > high)).mean()
        out["inherited_non_finite"] = inherited
        out["inherited_rmse_scale"] = math.sqrt((((x - m) / s) ** 2).mean())
        if (m**2).sum() > 0 and ((d - m) ** 2).sum() > 0:
            out["model_sqnr_db"] = 10 * math.log10((m**2).sum() / ((d - m) ** 2).sum())
    return out


def disagreements(metrics, expected, step):
    """Names of the figures that differ by more than 1e-6 (means: 1e-9 of a step)."""
    wrong = []
    for name, found in metrics.items():
        want = expected.get(name)
        if want is None or found is None:
            if want is not found:
                wrong.append((name, found, want))
            continue
        absolute = 1e-9 * (1 if name.endswith("_scale") else step)
        if name in ("cosine_similarity", "clipped", "saturated") or name.startswith("range_waste"):
            absolute = 1e-12
        if name == "fit_rmse_scale":  # a perfect line leaves some last digits of x and D(q)
            largest = max(abs(expected["float_min"]), abs(expected["float_max"]))
            largest = (largest + expected["max_abs_error"]) / abs(expected["fit_scale"])
            if abs(found**2 - want**2) > 2e-6 * want**2 + (1e-9 + 2e-14 * largest) ** 2:
                wrong.append((name, found, want))
            continue
        if name in ("stddev", "float_std"):  # a constant's mean may be off in its last digit
            absolute += 1e-15 * max(abs(expected["float_min"]), abs(expected["float_max"]))
        if abs(found - want) > 1e-6 * abs(want) + absolute:
            wrong.append((name, found, want))
    return wrong
