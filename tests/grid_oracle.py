"""Figures of elements whose steps differ, the slow, obvious way: a search in each one's values.

None of qdebug's own code is used.
"""

import math
from collections.abc import Sequence

import numpy as np


def cell(values: Sequence[float], value: float) -> tuple[float, float, int]:
    """Half distances to the neighbours of a value among all values of its block, and its end."""
    table = sorted(set(map(float, values)))
    place = min(range(len(table)), key=lambda i: abs(table[i] - value))
    below = table[place] - table[place - 1] if place else table[1] - table[0]
    above = table[place + 1] - table[place] if place + 1 < len(table) else below
    return below / 2, above / 2, -1 if not place else 1 if place + 1 == len(table) else 0


def figures(x, d, tables):
    """All figures as a dictionary, None for those that need one step.

    `x`, `d` and `tables` are lists: the floats, what their codes stand for, and all values that
    each one's block can represent.
    """
    kept = [i for i in range(len(x)) if math.isfinite(x[i]) and math.isfinite(d[i])]
    out = {"num_elements": len(kept), "non_finite": len(x) - len(kept)}
    x, d, tables = ([column[i] for i in kept] for column in (x, d, tables))
    cells = [cell(table, value) for table, value in zip(tables, d, strict=True)]
    x, d = np.array(x, np.float64), np.array(d, np.float64)
    below, above, ends = (np.array(column) for column in zip(*cells, strict=True))
    e, n = d - x, len(x)
    u = e / (below + above)
    square = (below**3 + above**3) / (3 * (below + above))
    fourth = (below**5 + above**5) / (5 * (below + above))
    outside = ((ends < 0) & (e > below)) | ((ends > 0) & (e < -above))
    out |= {
        "mean_error": e.mean(),
        "mean_error_scale": u.mean(),
        "outward_error_scale": (np.sign(x) * u).mean(),
        "stddev": e.std(),
        "max_abs_error": np.abs(e).max(),
        "max_abs_error_scale": np.abs(u).max(),
        "mse": (e**2).mean(),
        "rmse": math.sqrt((e**2).mean()),
        "times_expected": math.sqrt((e**2).mean() / square.mean()),
        "times_expected_stderr": math.sqrt((fourth - square**2).sum()) / square.sum() / 2,
        "clipped": outside.mean(),
        "clipped_error_share": (e[outside] ** 2).sum() / (e**2).sum(),
        "saturated": (ends != 0).mean(),
        "lost": (d[x != 0] == 0).mean(),
        "sqnr_db": 10 * math.log10((x**2).sum() / (e**2).sum()),
        "cosine_similarity": (x * d).sum() / math.sqrt((x**2).sum() * (d**2).sum()),
        "float_min": x.min(),
        "float_max": x.max(),
        "float_mean": x.mean(),
        "float_std": x.std(),
        "float_mean_abs": np.abs(x).mean(),
    }
    slope = ((x - x.mean()) * (d - d.mean())).sum() / ((d - d.mean()) ** 2).sum()
    zero = d.mean() - x.mean() / slope
    left = x - slope * (d - zero)
    assert n > 1
    return out | {
        "fit_scale": slope,
        "fit_zero_point": zero,
        "fit_rmse_scale": math.sqrt((left**2).mean()) / abs(slope),
    }


def assert_same(metrics, expected, relative=1e-9, absolute=1e-12):
    """All figures are those expected; None where they are missing."""
    for name, found in vars(metrics).items():
        want = expected.get(name)
        if want is None or found is None:
            assert found is want, (name, found, want)
        else:
            assert math.isclose(found, want, rel_tol=relative, abs_tol=absolute), (
                name,
                found,
                want,
            )
