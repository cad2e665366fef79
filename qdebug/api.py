"""The public API: everything the command line does, in Python. The command line calls it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from qdebug.arguments import at_least_one, file_name, one_of, texts, whole
from qdebug.arithmetic import affine
from qdebug.arithmetic.affine import QuantScheme, Rounding
from qdebug.errors import FieldError, QdebugError, locate
from qdebug.measure.ranges import RangeFrom, fitted
from qdebug.names import select, shown
from qdebug.output import whole_file
from qdebug.report import report as core
from qdebug.report.limits import parse_decibels, parse_growth, parse_share
from qdebug.results import Layer, PathName, Report, with_session
from qdebug.run.session import Session, hired
from qdebug.run.workers import Threads, Workers
from qdebug.sources.open import (
    Options,
    check_board,
    check_options,
    check_pairs_options,
    check_replay,
    is_saved,
    open_board,
    open_models,
    open_source,
    saved_report,
)
from qdebug.sources.pair_file.fields import normal_axis
from qdebug.sources.pair_file.memory import MemoryPairs, Pair, checked, floats_of, numbers_of

if TYPE_CHECKING:
    from qdebug.advise.switchboard import Found, Limits
    from qdebug.report.comparison import Comparison
    from qdebug.report.replay import Replay
    from qdebug.sources.inputs import Inputs
    from qdebug.sources.tflite.run import Kernels

__all__ = [
    "Layer",
    "Pair",
    "QdebugError",
    "Report",
    "analyze",
    "capture",
    "compare",
    "diff",
    "load",
    "quantize",
    "replay",
    "save_pairs",
    "suggest",
]

Advance = Callable[[int, int], None]


def analyze(
    *sources: PathName | Mapping[str, Pair],
    inputs: "Inputs | None" = None,
    layers: str | Sequence[str] = (),
    samples: int | None = None,
    kernels: "Kernels | None" = None,
    signature: str | None = None,
    keys: Mapping[str, str] | None = None,
    jobs: int | None = None,
    scheduler: str | None = None,
    measure: bool = False,
) -> Report:
    """The report of a source: every layer's figures and diagnosis.

    Args:
        sources: pair files (.npz), globs or URLs; a float and a quantized model (.tflite, .onnx);
            a saved report (.json) or the CSV of TFLite's debugger; or pairs in memory, by layer.
        inputs: samples to run two models on: a file (.npz, .npy), an array, or an array for each
            model input; samples along the first axis, in the float model's units. Without inputs,
            only weights and biases are reported.
        layers: only the layers that match a name or glob.
        samples: how many of the samples to use, from the first.
        kernels: LiteRT's kernels: ``default``, ``builtin`` or ``reference``.
        signature: of a .tflite model that has several.
        keys: how pair files name their arrays: field -> template, ``{}`` for the layer.
        jobs: threads; None means one per core.
        scheduler: address of a Dask cluster that reads pair files, or ``local``.
        measure: whether to run two models with each operator in float, and with each one quantized
            alone; the results are the layers' `measured`.

    >>> report = analyze({"conv1": quantize([0.1, 0.2, 0.7]), "conv2": quantize([0.5, 1.0])})
    >>> [layer.metrics.num_elements for layer in report]
    [3, 2]

    Raises:
        QdebugError: the source cannot be read, or an option does not apply to it. A single layer
            that cannot be read is in the report with its reason (`Report.complaints`).
    """
    patterns = texts("layers", layers)
    options = Options(keys, inputs, samples, kernels, signature, jobs, scheduler)
    if len(sources) == 1 and isinstance(sources[0], Mapping):
        check_pairs_options(options)
        if measure:
            raise QdebugError("measure: found pairs, expected a float and a quantized model to run")
        session = Session(MemoryPairs(sources[0]), Threads(jobs))
        return with_session(session.report(patterns), session)
    expected = "a path or URL, or nothing but one mapping of layers to pairs"
    names = [file_name(source, expected) for source in sources]
    check_options(names, options)
    if measure:
        check_board(names, options)
    with hired(jobs, scheduler) as workers:
        report = read(names, options, patterns, workers)
    return with_measured(report, names, options) if measure else report


def read(
    names: Sequence[str],
    options: Options,
    patterns: Sequence[str] = (),
    workers: Workers | None = None,
    advance: Advance | None = None,
) -> Report:
    """As `analyze`, with the caller's workers; `advance` is called to report progress."""
    if is_saved(names):
        check_options(names, options)
        saved = saved_report(names[0])
        chosen = select([layer.name for layer in saved.layers], patterns)
        return with_session(
            replace(saved, layers=[layer for layer in saved.layers if layer.name in chosen])
        )
    session = Session(open_source(names, options, workers), workers, advance)
    report = session.report(patterns)
    session.workers = Threads(options.jobs)  # a cluster may be gone at the next request
    return with_session(report, session)


def load(path: PathName) -> Report:
    """The report that `Report.save` or ``qdebug report --format json`` wrote.

    The CSV of TFLite's debugger is read, too.

    >>> import tempfile
    >>> report = analyze({"conv1": quantize([0.1, 0.2, 0.7])})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report.save(f"{folder}/report.json")
    ...     load(f"{folder}/report.json") == report
    True

    Raises:
        QdebugError: no such file, or it is not a report.
    """
    return with_session(saved_report(file_name(path)))


def compare(
    x: ArrayLike,
    q: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike = 0,
    axis: int | None = None,
    *,
    bits: int | None = None,
    narrow_range: bool = False,
    rounding: Rounding = "half_away",
    model_float: ArrayLike | None = None,
    weights_float: ArrayLike | None = None,
    kind: str | None = None,
    name: str = "tensor",
) -> Layer:
    """Figures and diagnosis of one tensor in memory.

    Args:
        x: the float reference, any shape.
        q: the codes, of an integer type and the same shape.
        scale: above 0; () or (1,) per tensor, (channels,) per channel.
        zero_point: integers; (), (1,) or (channels,).
        axis: the channel axis, if there is more than one scale.
        bits: bits in use, if fewer than the codes' type has.
        narrow_range: the lowest code is not used.
        rounding: ``half_away`` from zero, as in TFLite, or ``half_even``, as in ONNX.
        model_float: the same tensor in a run of the whole float model.
        weights_float: the output of the float operator with the quantized weights.
        kind: ``activation``, ``weight`` or ``bias``: the advice depends on it.
        name: the layer's name in messages and plots.

    >>> import numpy as np
    >>> layer = compare([0.1, 0.26, -0.2], np.array([1, 3, -2], np.int8), scale=0.1)
    >>> round(layer.metrics.max_abs_error_scale, 6), layer.diagnosis.cause
    (0.4, 'ok')

    Raises:
        QdebugError: the arrays do not make a pair.
    """
    about: dict[str, Any] = {"bits": bits, "narrow_range": narrow_range}
    about |= {"rounding": rounding, "kind": kind}
    about |= {"model_float": model_float, "weights_float": weights_float}
    pair = named_pair(name, x, q, scale, zero_point, axis, **about)
    return analyze({name: pair}).layers[0]


def named_pair(name: str, *arrays: Any, **more: Any) -> Pair:
    """A pair whose errors contain its name.

    Raises:
        QdebugError: the arrays do not make a pair.
    """
    try:
        return Pair(*arrays, **more)
    except QdebugError as error:
        raise locate(error, layer=shown(str(name))) from None


def quantize(
    x: ArrayLike,
    dtype: DTypeLike = "int8",
    *,
    bits: int | None = None,
    symmetric: bool = False,
    narrow_range: bool = False,
    axis: int | None = None,
    range_from: RangeFrom = "minmax",
    value_range: tuple[float, float] | None = None,
    rounding: Rounding = "half_away",
) -> Pair:
    """Quantize floats; return them and their codes as a pair.

    Args:
        x: the floats, any shape.
        dtype: type of the codes: int8, uint8, int16, uint16 or int32.
        bits: bits in use, if fewer than the type has.
        symmetric: the zero point is the middle code.
        narrow_range: the lowest code is not used.
        axis: the channel axis, for one scale per channel.
        range_from: how to choose the range that the codes cover: ``minmax``; ``mse``, the range
            with the least mean squared error; or a percentage of the elements, such as 99.9.
        value_range: the least and the largest float to cover, instead of `range_from`; only for
            tensors with one scale.
        rounding: ``half_away`` from zero as TFLite, or ``half_even`` as ONNX and NumPy.

    >>> pair = quantize([-20.0, 0.0, 1000.0])
    >>> pair
    <Pair float64 (3,) to int8, scale 4, zero point -123>
    >>> pair.codes
    array([-128, -123,  127], dtype=int8)

    Raises:
        QdebugError: a type, bits or range that is not possible.
    """
    floats = floats_of("float", x)
    one_of("rounding", rounding, get_args(Rounding))
    scheme = QuantScheme(_type_name(dtype), whole("bits", bits), narrow_range, symmetric, rounding)
    along = normal_axis(whole("axis", axis), floats.ndim)
    if value_range is None:
        params = fitted(floats, scheme, along, range_from)
    else:
        if along is not None or range_from != "minmax":
            raise QdebugError("value_range: found axis or range_from beside it, expected neither")
        ends = numbers_of("value_range", value_range, "iuf", "two numbers")
        if ends.shape != (2,):
            found = f"an array of shape {ends.shape}"
            raise FieldError("value_range", found=found, expected="two numbers")
        params = affine.params_from_range(ends[0], ends[1], scheme)
    return Pair(
        floats,
        affine.quantize(floats, params),
        params.scale,
        params.zero_point,
        params.axis,
        bits=params.bits,
        narrow_range=params.narrow_range,
        rounding=params.rounding,
    )


def _type_name(dtype: DTypeLike) -> str:
    """The name of a NumPy type; of anything else, its text."""
    try:
        return np.dtype(dtype).name
    except TypeError:
        return shown(str(dtype))


def save_pairs(path: PathName, pairs: Mapping[str, Pair], *, compress: bool = False) -> None:
    """Write pairs, by layer, to a pair file (docs/pair-file.md).

    Args:
        path: the file.
        pairs: one or more, in the order of the layers.
        compress: deflate the file: smaller, but slower to read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_pairs(f"{folder}/pairs.npz", {"conv1": quantize([0.1, 0.2, 0.7])})
    ...     "conv1" in analyze(f"{folder}/pairs.npz")
    True

    Raises:
        QdebugError: `pairs` is not a mapping of names to pairs, or the file cannot be written.
    """
    from qdebug.sources.pair_file.write import PairFileWriter

    found = checked(pairs)
    if not found:
        raise QdebugError("found no pair, expected one or more")
    with whole_file(Path(file_name(path))) as file, PairFileWriter(file, compress) as writer:
        for name, pair in found.items():
            writer.add_pair(name, pair)


def capture(
    *models: PathName,
    path: PathName,
    inputs: "Inputs | None" = None,
    layers: str | Sequence[str] = (),
    samples: int | None = None,
    kernels: "Kernels | None" = None,
    signature: str | None = None,
    compress: bool = False,
) -> list[str]:
    """Run two models and save their tensors as a pair file.

    Args:
        models: a float and a quantized model, or one .tflite in TFLite's debug mode.
        path: the pair file to write.
        inputs: as for `analyze`.
        layers: only the layers that match a name or glob.
        samples: how many of the samples to use, from the first.
        kernels: LiteRT's kernels.
        signature: of a .tflite model that has several.
        compress: deflate the file: smaller, but slower to read.

    Returns:
        One line per layer that could not be captured.

    Raises:
        QdebugError: the models cannot be read or run, or the file cannot be written.
    """
    patterns = texts("layers", layers)
    target = Path(file_name(path))
    options = Options(inputs=inputs, samples=samples, kernels=kernels, signature=signature)
    source = open_models([file_name(model) for model in models], options)
    from qdebug.sources.pair_file.write import capture as write
    from qdebug.sources.pair_file.write import not_storable

    names = select([layer.name for layer in source.layers], patterns)
    problems = write(source, names, target, packed=compress)
    return problems + not_storable(source, names)


def suggest(
    *models: PathName,
    inputs: "Inputs",
    top: int | None = None,
    budget: float | str | None = None,
    target: float | str | None = None,
    time_limit: float | None = None,
    samples: int | None = None,
    kernels: "Kernels | None" = None,
    signature: str | None = None,
) -> "Found":
    """The operators to leave in float, found by running two models with operators in float.

    `Report.suggest` predicts from figures instead; this is surer, and takes longer.

    Args:
        models: a float and a quantized model.
        inputs: as for `analyze`.
        top: at most so many operators.
        budget: the fewest that remove this share of the outputs' error power: 0.8 or "80%". That
            is the default without `top` and `target`.
        target: the fewest that bring the outputs' SQNR to this level: 20 or "20dB".
        time_limit: seconds; the best so far is then returned.
        samples: how many of the samples to use, from the first.
        kernels: LiteRT's kernels.
        signature: of a .tflite model that has several.

    Raises:
        QdebugError: the models cannot be read, run or switched, are not a pair, or a bad number.
    """
    from qdebug.advise.suggest import DEFAULT_BUDGET
    from qdebug.advise.switchboard import Limits

    at_least_one("top", top)
    if time_limit is not None and not time_limit > 0:
        raise QdebugError(f"time_limit: found {time_limit!r:.60}, expected seconds above 0")
    share = DEFAULT_BUDGET if top is None and target is None else None
    level = None if target is None else parse_decibels(target, "target")
    share = share if budget is None else parse_share(budget, "budget")
    options = Options(inputs=inputs, samples=samples, kernels=kernels, signature=signature)
    names = [file_name(model) for model in models]
    return measured(names, options, Limits(top, share, level), time_limit)


def measured(
    names: Sequence[str],
    options: Options,
    limits: "Limits",
    time_limit: float | None = None,
    advance: Advance | None = None,
) -> "Found":
    """As `suggest`; `advance` is called to report progress."""
    from qdebug.advise.switchboard import search

    board = open_board(names, options)
    return search(board, limits, time_limit=time_limit, advance=advance)


def diff(
    old: "PathName | core.Report",
    new: "PathName | core.Report",
    *,
    max_regression: float | str = 0.1,
) -> "Comparison":
    """What changed from one report to another: which layers got worse, vanished, or are new.

    Args:
        old: a report, or a name that `analyze` takes.
        new: likewise.
        max_regression: how much worse a layer may get: 0.1 or "10%".

    >>> import numpy as np
    >>> x = np.linspace(-1, 1, 5000)
    >>> fine, coarse = (analyze({"a": quantize(x, value_range=(-r, r))}) for r in (1, 2))
    >>> [(change.name, change.status, change.figure) for change in diff(fine, coarse).changes]
    [('a', 'worse', 'sqnr_db')]

    Raises:
        QdebugError: a report cannot be read, they have no layer in common, or a bad number.
    """
    from qdebug.report.comparison import compare as compared

    limit = parse_growth(max_regression, "max_regression")
    before, after = (
        each if isinstance(each, core.Report) else analyze(each) for each in (old, new)
    )
    return compared(before, after, limit)


def replay(
    model: PathName,
    inputs: "Inputs | None" = None,
    *,
    outputs: "Inputs | None" = None,
    samples: int | None = None,
    kernels: "Kernels | None" = None,
    signature: str | None = None,
    tolerance: int = 0,
) -> "Replay":
    """Compute a quantized model's codes again in integers, and compare them with recorded ones.

    Args:
        model: a quantized .tflite.
        inputs: as for `analyze`; None if `outputs` has all codes.
        outputs: codes that a device computed: a file (.npz) or arrays, one for each tensor, by its
            name in the model, samples along the first axis; tensors may be missing. None for the
            codes of the local runtime.
        samples: how many of the samples to use, from the first.
        kernels: LiteRT's kernels.
        signature: of a .tflite model that has several.
        tolerance: steps by which a code may differ without a search for the kernel's fault.

    Raises:
        QdebugError: the model, the inputs or the codes cannot be read, or nothing can be compared.
    """
    if isinstance(tolerance, bool) or not isinstance(tolerance, int) or tolerance < 0:
        raise QdebugError(f"tolerance: found {tolerance!r:.60}, expected steps: 0 or more")
    options = Options(inputs=inputs, samples=samples, kernels=kernels, signature=signature)
    return replayed(file_name(model), outputs, options, tolerance)


def replayed(
    model: str,
    outputs: "Inputs | None",
    options: Options,
    tolerance: int = 0,
    advance: Advance | None = None,
) -> "Replay":
    """As `replay`; `advance` is called to report progress."""
    check_replay(model, options)
    from qdebug.sources.tflite.replay.run import replay as run

    return run(
        model,
        options.inputs,
        outputs=outputs,
        samples=options.samples,
        kernels=options.kernels,
        signature=options.signature,
        tolerance=tolerance,
        advance=advance,
    )


def with_measured(
    report: Report,
    names: Sequence[str],
    options: Options,
    time_limit: float | None = None,
    advance: Advance | None = None,
) -> Report:
    """The report of a live pair, each operator's layer with what it does to the outputs.

    Raises:
        QdebugError: as `suggest`.
    """
    from qdebug.advise.meter import Meter, OutOfTimeError
    from qdebug.advise.switchboard import alone
    from qdebug.render.measured import judged

    board = open_board(names, options)
    meter = Meter(board, advance=advance)
    report = replace(report, notes=[*report.notes, *judged(board.outputs, meter.parts)])
    wanted = {layer.name for layer in report.layers}
    places = [place for place, o in enumerate(board.operators) if o.layer in wanted]
    meter.planned = 2 * len(places) * board.num_samples
    meter.limit(time_limit)
    found: dict[str, core.Measured] = {}
    try:
        for place in places:
            found.setdefault(board.operators[place].layer, alone(meter, place))
    except OutOfTimeError:
        count = f"{len(found)} of {len(places)} operators"
        report = replace(
            report, notes=[*report.notes, f"the time limit ended measuring after {count}"]
        )
    layers = [replace(each, measured=found.get(each.name)) for each in report.layers]
    return replace(report, layers=layers)
