"""A pair of LiteRT models as a source: its layers, and what is asked of it and no more."""

import subprocess
import sys
import textwrap
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from qdebug.run import session
from tests.oracle import figures
from tests.sources.tflite.models import FLOAT, INPUTS, INT8, arrays, digits, layer, source
from tests.visits import blocks_of


def test_the_figures_are_those_of_the_arrays():
    models = digits()
    report = session.run(models)
    found = arrays(models)
    for row in report.layers:
        floats, codes, model = found[row.name]
        params = layer(models, row.name).params
        shape = layer(models, row.name).shape
        expected = figures(
            floats.reshape(-1, *shape[1:]),
            codes.reshape(-1, *shape[1:]),
            params.scale,
            params.zero_point,
            params.axis,
            params.bits,
            params.narrow_range,
            None if model is None else model.reshape(-1, *shape[1:]),
        )
        assert row.metrics is not None
        for figure in ("num_elements", "rmse_scale", "mean_error", "carried_rmse_scale", "sqnr_db"):
            assert getattr(row.metrics, figure) == pytest.approx(expected[figure], 1e-6, 1e-9)


def test_layers_are_in_the_order_in_which_the_model_runs():
    models = digits(samples=1)
    assert [(layer.op, layer.kind) for layer in models.layers] == [
        (None, "activation"),
        *[("CONV_2D", kind) for kind in ("weight", "bias", "activation")],
        *[("DEPTHWISE_CONV_2D", kind) for kind in ("weight", "bias", "activation")],
        *[("CONV_2D", kind) for kind in ("weight", "bias", "activation")],
        ("ADD", "activation"),
        ("AVERAGE_POOL_2D", "activation"),
        *[("CONV_2D", kind) for kind in ("weight", "bias", "activation")],
        ("MEAN", "activation"),
        *[("FULLY_CONNECTED", kind) for kind in ("weight", "bias", "activation")],
        ("SOFTMAX", "activation"),
    ]
    assert models.skipped == []
    assert models.notes == []
    assert models.files == [str(FLOAT), str(INT8), str(INPUTS)]


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["default", "builtin", "reference"])
def test_every_kind_of_kernels_gives_sound_figures(kernels):
    report = session.run(digits(kernels=kernels))
    assert len(report.layers) == 20
    assert all(row.metrics.rmse_scale < 0.6 for row in report.layers)


def test_samples_are_the_first():
    all_of_them, few = arrays(digits()), arrays(digits(samples=3))
    for name, kinds in few.items():
        for some, every in zip(kinds, all_of_them[name], strict=True):
            if some is not None:
                np.testing.assert_array_equal(some, every[: some.size])


def test_only_what_is_asked_for_is_done():
    models = digits()
    (part,) = models.parts([layer for layer in models.layers if layer.kind == "weight"][:1])
    assert [block.codes.dtype for _, block in blocks_of(part)] == [np.int8]
    chosen = [layer for layer in models.layers if layer.op == "SOFTMAX"]
    (part,) = models.parts(chosen)
    assert part.layers == chosen
    assert [layer for layer, _ in blocks_of(part)] == chosen * 40


def test_two_passes_at_once_do_not_disturb_each_other():
    models = digits(samples=4)
    chosen = [layer for layer in models.layers if layer.kind == "activation"]
    (part,) = models.parts(chosen)
    alone = [block.codes for _, block in blocks_of(part)]
    with ThreadPoolExecutor(2) as pool:
        passes = [[block.codes for _, block in found] for found in pool.map(blocks_of, [part] * 2)]
    together = list(zip(*passes, strict=True))
    for codes, (first, second) in zip(alone, together, strict=True):
        np.testing.assert_array_equal(codes, first)
        np.testing.assert_array_equal(codes, second)


def test_without_inputs_there_are_the_constants():
    models = source(FLOAT, INT8)
    assert {layer.kind for layer in models.layers} == {"weight", "bias"}
    assert len(models.layers) == 10
    assert models.notes == ["no inputs: weights and biases only"]
    assert models.samples is None


def fresh(code):
    """Run `code` in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_runtimes_own_chatter_does_not_reach_the_user():
    ran = fresh(
        f"""
        import sys
        from qdebug.run import session
        from qdebug.sources.tflite.source import LitertModels
        models = LitertModels([{str(FLOAT)!r}, {str(INT8)!r}], {str(INPUTS)!r}, samples=2)
        session.run(models)
        print("still heard", file=sys.stderr)
        """
    )
    assert ran.returncode == 0
    assert ran.stderr == "still heard\n"


@pytest.mark.slow
def test_a_missing_extra_is_said_with_what_to_install():
    ran = fresh(
        f"""
        import sys
        sys.modules["ai_edge_litert"] = None
        import qdebug.sources.tflite.source as litert
        try:
            litert.LitertModels([{str(FLOAT)!r}, {str(INT8)!r}], {str(INPUTS)!r})
        except litert.QdebugError as error:
            print(error)
        """
    )
    assert ran.stdout == "LiteRT models need an extra: pip install 'qdebug[litert]'\n"


@pytest.mark.slow
def test_the_extra_is_not_imported_before_it_is_used():
    ran = fresh("import sys, qdebug.sources.tflite.source; print('ai_edge_litert' in sys.modules)")
    assert ran.stdout == "False\n"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_samples(tmp_path):
    images = np.load(INPUTS)["image"]
    peaks = []
    for times in (2, 4):  # of 40 samples: in 64, small blocks have been put together
        np.save(tmp_path / "x.npy", np.concatenate([images] * times))
        models = source(FLOAT, INT8, tmp_path / "x.npy")
        tracemalloc.start()
        session.run(models)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The layers' floats, codes and model floats of a sample are 26 kB: 2 MB more.
    assert peaks[1] - peaks[0] < 200_000
