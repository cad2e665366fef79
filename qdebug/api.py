"""The front door: what the command line can do, in Python. The command line is a shell on it."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from qdebug.arithmetic import affine
from qdebug.arithmetic.affine import QuantScheme, Rounding
from qdebug.arithmetic.ranges import RangeFrom, fitted
from qdebug.errors import MissingExtraError, QdebugError
from qdebug.names import find, select, shown
from qdebug.output import whole_file
from qdebug.report import report as core
from qdebug.report.limits import CheckResult, Config, check, limits_of, parse_causes
from qdebug.run.session import Session, hired
from qdebug.run.workers import Threads, Workers
from qdebug.sources.memory import MemoryPairs, Pair
from qdebug.sources.open import (
    Options,
    check_options,
    is_saved,
    open_models,
    open_source,
    saved_report,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from qdebug.advise.suggest import Suggestions
    from qdebug.advise.whatif import WhatIf
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
    "load",
    "quantize",
    "save_pairs",
]

PathName = str | os.PathLike[str]
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Layer(core.LayerReport):
    """One layer of a report: what it is, its figures (`metrics`) and its `diagnosis`.

    In a notebook it shows itself as its picture, where its tensors are at hand.
    """

    session: Session | None = field(default=None, repr=False, compare=False, kw_only=True)

    def plot(self, path: PathName | None = None) -> "Figure":
        """The layer's picture: floats and codes over each other, and the error in steps.

        Args:
            path: a PNG file to write it to.

        Raises:
            QdebugError: the tensors are not at hand, or have no finite element.
        """
        from qdebug.render import plots

        if self.metrics is None or not self.metrics.num_elements:
            raise QdebugError(
                self.unreadable or f"layer '{shown(self.name)}': no finite element to draw"
            )
        found = _tensors(self).distributions(core.Report([], [self]))
        figure = plots.layer_figure(self, found[self.name])
        if path is not None:
            with whole_file(Path(path)) as file:
                plots.save_png(figure, file)
        return figure

    def what_if(self) -> "WhatIf":
        """What other ways to quantize the same floats would give.

        Raises:
            QdebugError: the tensors are not at hand, or cannot be read.
        """
        from qdebug.advise.whatif import explore

        report, found = explore(_tensors(self), [self.name])
        if self.name not in found:
            raise QdebugError("; ".join(report.complaints))
        return found[self.name]

    def explain(self, width: int = 80) -> str:
        """The layer on one screen, as ``qdebug explain`` prints it.

        Raises:
            QdebugError: the layer could not be read.
        """
        from qdebug.render.explain import explained

        if self.metrics is None:
            raise QdebugError(self.unreadable or f"layer '{shown(self.name)}': no figures")
        return explained(self, None if self.session is None else self.what_if(), width)

    def _repr_png_(self) -> bytes | None:
        import io

        from qdebug.render import plots

        if self.session is None or self.metrics is None or not self.metrics.num_elements:
            return None
        file = io.BytesIO()
        plots.save_png(self.plot(), file)
        return file.getvalue()


@dataclass(frozen=True)
class Report(core.Report):
    """All layers of a source, in its order. In a notebook it shows itself as a table.

    >>> import numpy as np, qdebug
    >>> x = np.linspace(-1, 1, 1000)
    >>> report = qdebug.analyze({"conv1": qdebug.quantize(x)})
    >>> report["conv1"].diagnosis.cause, len(report)
    ('ok', 1)
    """

    session: Session | None = field(default=None, repr=False, compare=False, kw_only=True)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, name: str) -> Layer:
        """The layer of this name, or the only one that has `name` as a part of its name.

        Raises:
            KeyError: there is no such layer, or there are several.
        """
        try:
            (found,) = find([layer.name for layer in self.layers], name, part=True)
        except QdebugError as error:
            raise KeyError(str(error)) from None
        except ValueError:
            raise KeyError(f"'{shown(name)}' is a glob for several layers") from None
        return self._layer(next(layer for layer in self.layers if layer.name == found))

    def worst(self, n: int = 5) -> list[Layer]:
        """The `n` layers whose error is the largest multiple of what rounding alone gives."""
        readable = [layer for layer in self.layers if layer.metrics is not None]
        return [
            self._layer(layer) for layer in sorted(readable, key=lambda each: -each.badness)[:n]
        ]

    def save(self, path: PathName) -> None:
        """Write the report as JSON (docs/report.md).

        Raises:
            QdebugError: it cannot be written.
        """
        from qdebug.report.json import json_pieces

        with whole_file(Path(path)) as file:
            for piece in json_pieces(self):
                file.write(piece.encode())

    def to_pandas(self) -> "pd.DataFrame":
        """A data frame: a row for each layer, a column for each figure.

        Raises:
            QdebugError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError("to_pandas() needs", "pandas") from None
        from qdebug.render.columns import COLUMNS, layer_row

        rows = [layer_row(layer) for layer in self.layers]
        names = [name for name in COLUMNS if name != "channel"]
        return pd.DataFrame(
            {name: [COLUMNS[name].value(row) for row in rows] for name in names}, columns=names
        ).set_index("layer")

    def check(
        self,
        *,
        fail_on: Sequence[str] = (),
        config: PathName | None = None,
        **limits: float | str,
    ) -> CheckResult:
        """Check every layer against limits, as ``qdebug check`` does.

        Args:
            fail_on: causes that no layer may have.
            config: a configuration file whose limits apply, too.
            limits: ``max_rmse_scale``, ``max_mean_error``, ``min_sqnr``, ``max_range_waste``,
                ``max_clipped``, ``max_saturated``, ``max_abs_error``; without any limit
                ``max_rmse_scale=0.7``. Shares may be text such as ``"1%"``.

        Raises:
            QdebugError: no such limit or cause, or a bound that is none.
        """
        from qdebug.report.configuration import read_config

        read = Config() if config is None else read_config(Path(config))
        causes = parse_causes(fail_on, "fail_on")
        return check(
            self,
            limits_of(limits),
            dict.fromkeys(read.fail_on, str(read.path)) | dict.fromkeys(causes, "fail_on"),
            read,
        )

    def suggest(self) -> "Suggestions":
        """The operators to leave in float, the one that helps most first.

        Raises:
            QdebugError: the report has no operator to judge.
        """
        from qdebug.advise.suggest import suggestions

        return suggestions(self)

    def plot(self, path: PathName | None = None) -> "Figure":
        """A picture of all layers' RMSE/scale against 0.289.

        Args:
            path: a PNG file to write it to.

        Raises:
            QdebugError: no layer has a finite element.
        """
        from qdebug.render import plots

        figure = plots.overview_figure(self)
        if path is not None:
            with whole_file(Path(path)) as file:
                plots.save_png(figure, file)
        return figure

    def __str__(self) -> str:
        import click

        from qdebug.render.columns import View
        from qdebug.render.table import table

        return click.unstyle(table(self, View()))

    def _repr_html_(self) -> str:
        from qdebug.render.columns import View
        from qdebug.render.notebook import html_table

        return html_table(self, View())

    def _layer(self, layer: core.LayerReport) -> Layer:
        session = None if layer.metrics is None else self.session
        return Layer(**_fields(core.LayerReport, layer), session=session)


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
) -> Report:
    """The report of a source: every layer's figures and diagnosis.

    Args:
        sources: pair files (.npz), globs or URLs; a float and a quantized model (.tflite, .onnx);
            a saved report (.json) or the CSV of TFLite's debugger; or pairs in memory, by layer.
        inputs: samples to run two models on: a file (.npz, .npy), an array, or an array for each
            model input; samples along the first axis.
        layers: only the layers that a name or glob names.
        samples: how many of the samples to take, from the first.
        kernels: LiteRT's kernels: ``default``, ``builtin`` or ``reference``.
        signature: of a .tflite model that has several.
        keys: how pair files name their arrays: field -> template, ``{}`` for the layer.
        jobs: threads; as many as there are cores where None.
        scheduler: address of a Dask cluster that reads pair files, or ``local``.

    Raises:
        QdebugError: what cannot be read, or options that mean nothing for it. A layer that cannot
            be read is in the report with its reason (`Report.complaints`).
    """
    patterns = [layers] if isinstance(layers, str) else layers
    options = Options(keys, inputs, samples, kernels, signature, jobs, scheduler)
    if len(sources) == 1 and isinstance(sources[0], Mapping):
        check_options([], options)
        session = Session(_in_memory(sources[0]), Threads(jobs))
        return _with_session(session.report(patterns), session)
    names = [_name(source) for source in sources]
    check_options(names, options)
    with hired(jobs, scheduler) as workers:
        return read(names, options, patterns, workers)


def read(
    names: Sequence[str],
    options: Options,
    patterns: Sequence[str] = (),
    workers: Workers | None = None,
    advance: Advance | None = None,
) -> Report:
    """As `analyze`, by workers that the caller has hired; `advance` is called as work goes on."""
    if is_saved(names):
        check_options(names, options)
        saved = saved_report(names[0])
        chosen = select([layer.name for layer in saved.layers], patterns)
        kept = [layer for layer in saved.layers if layer.name in chosen]
        return _with_session(replace(saved, layers=kept), None)
    session = Session(open_source(names, options, workers), workers, advance)
    report = session.report(patterns)
    session.workers = Threads(options.jobs)  # a cluster may be gone when more is asked for
    return _with_session(report, session)


def load(path: PathName) -> Report:
    """The report that `Report.save` or ``qdebug report --format json`` wrote.

    Raises:
        QdebugError: no such file, or no report.
    """
    return _with_session(saved_report(_name(path)), None)


def compare(
    x: ArrayLike,
    q: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike = 0,
    axis: int | None = None,
    **more: Any,
) -> Layer:
    """Figures and diagnosis of one tensor in memory.

    Args:
        x: the float reference, any shape.
        q: the codes, of an integer type and the same shape.
        scale: above 0; () or (1,) per tensor, (channels,) per channel.
        zero_point: (), (1,) or (channels,).
        axis: the channel axis, where there is more than one scale.
        more: what else `Pair` takes.

    >>> import numpy as np
    >>> layer = compare([0.1, 0.26, -0.2], np.array([1, 3, -2], np.int8), scale=0.1)
    >>> round(layer.metrics.max_abs_error_scale, 6), layer.diagnosis.cause
    (0.4, 'ok')

    Raises:
        QdebugError: the arrays do not make a pair.
    """
    name = more.pop("name", "tensor")
    pair = Pair(x, q, scale, zero_point, axis, **more)
    session = Session(_in_memory({name: pair}), Threads(None))
    return _with_session(session.report(), session)[name]


def quantize(
    x: ArrayLike,
    dtype: str = "int8",
    *,
    bits: int | None = None,
    symmetric: bool = False,
    narrow_range: bool = False,
    axis: int | None = None,
    range_from: RangeFrom = "minmax",
    value_range: tuple[float, float] | None = None,
    rounding: Rounding = "half_away",
) -> Pair:
    """Floats and the codes they are quantized to, as a pair.

    Args:
        x: the floats, any shape.
        dtype: type of the codes: int8, uint8, int16, uint16 or int32.
        bits: bits in use, where the type has more.
        symmetric: the zero point is the middle code.
        narrow_range: the lowest code is not used.
        axis: the channel axis, for a scale a channel.
        range_from: the range that the codes cover: ``minmax``, ``mse``, or a percentage of the
            elements.
        value_range: that range itself, instead.
        rounding: ``half_away`` from zero as TFLite, or ``half_even`` as ONNX and NumPy.

    >>> pair = quantize([-20.0, 0.0, 1000.0])
    >>> pair.params.scale, pair.params.zero_point, pair.codes
    (array([4.]), array([-123]), array([-128, -123,  127], dtype=int8))

    Raises:
        QdebugError: a type, bits or range that cannot be.
    """
    floats = np.asarray(x)
    scheme = QuantScheme(dtype, bits, narrow_range, symmetric)
    params = (
        fitted(floats, scheme, axis, range_from)
        if value_range is None
        else affine.params_from_range(*value_range, scheme)
    )
    codes = affine.quantize(floats, params, rounding)
    return Pair(
        floats,
        codes,
        params.scale,
        params.zero_point,
        params.axis,
        bits=params.bits,
        narrow_range=params.narrow_range,
    )


def save_pairs(path: PathName, pairs: Mapping[str, Pair], *, compress: bool = False) -> None:
    """Write pairs, by layer, to a pair file (docs/pair-file.md).

    Raises:
        QdebugError: it cannot be written.
    """
    from qdebug.sources.pair_file.write import PairFileWriter

    with whole_file(Path(path)) as file, PairFileWriter(file, compress) as writer:
        for name, pair in pairs.items():
            writer.add_pair(name, pair)


def capture(
    *models: PathName,
    inputs: "Inputs",
    path: PathName,
    layers: str | Sequence[str] = (),
    samples: int | None = None,
    kernels: "Kernels | None" = None,
    signature: str | None = None,
    compress: bool = False,
) -> list[str]:
    """Run two models and save their tensors as a pair file.

    Args:
        models: a float and a quantized model, or one .tflite in TFLite's debug mode.
        inputs: as for `analyze`.
        path: the pair file to write.
        layers: only the layers that a name or glob names.
        samples: how many of the samples to take, from the first.
        kernels: LiteRT's kernels.
        signature: of a .tflite model that has several.
        compress: deflate the file: smaller, but slower to read.

    Returns:
        What could not be captured, a line each.

    Raises:
        QdebugError: the models cannot be read or run, or the file cannot be written.
    """
    source = open_models(
        [_name(model) for model in models],
        Options(inputs=inputs, samples=samples, kernels=kernels, signature=signature),
    )
    from qdebug.sources.pair_file.write import capture as write

    names = select(
        [layer.name for layer in source.layers], [layers] if isinstance(layers, str) else layers
    )
    return write(source, names, Path(path), packed=compress)


def _name(source: Any) -> str:
    """A source as text.

    Raises:
        QdebugError: it is nothing that names a file.
    """
    if not isinstance(source, str | os.PathLike):
        raise QdebugError(
            f"found a source of type {type(source).__name__}, expected a path, a URL, or one "
            "mapping of layers to pairs"
        )
    return os.fspath(source) if isinstance(os.fspath(source), str) else os.fsdecode(source)


def _in_memory(pairs: Mapping[str, Pair]) -> MemoryPairs:
    for name, pair in pairs.items():
        if not isinstance(pair, Pair):
            raise QdebugError(
                f"layer '{shown(str(name))}': found {type(pair).__name__}, expected a qdebug.Pair"
            )
    return MemoryPairs(pairs)


def _fields(kind: type, value: Any) -> dict[str, Any]:
    return {each.name: getattr(value, each.name) for each in fields(kind)}


def _with_session(report: core.Report, session: Session | None) -> Report:
    return Report(**_fields(core.Report, report), session=session)


def _tensors(layer: Layer) -> Session:
    if layer.session is None:
        raise QdebugError(
            f"layer '{shown(layer.name)}': its tensors are not at hand: found a saved report or an "
            "unreadable layer, expected a layer of qdebug.analyze or qdebug.compare"
        )
    return layer.session
