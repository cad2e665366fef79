"""What the front door gives back: a report and its layers, which can go back to their tensors."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from qdebug.arguments import at_least_one, file_name, one_of, texts
from qdebug.errors import MissingExtraError, QdebugError, UnknownLayerError
from qdebug.names import file_stems, find, find_all, printable, shown
from qdebug.output import check_writable, whole_file
from qdebug.report import report as core
from qdebug.report.limits import CheckResult, Config, check, limits_of, parse_causes, parse_share
from qdebug.run.session import Session

if TYPE_CHECKING:
    import pandas as pd

    from qdebug.advise.remedy import Recommendation
    from qdebug.advise.suggest import Suggestion, Suggestions
    from qdebug.advise.whatif import WhatIf
    from qdebug.measure.requantized import Requantized
    from qdebug.render.plots import Picture, What
    from qdebug.sources.inputs import Inputs

PathName = str | PathLike[str]


@dataclass(frozen=True)
class Layer(core.LayerReport):
    """One layer of a report: what it is, its figures (`metrics`) and its `diagnosis`.

    In a notebook it shows itself as its picture, where its tensors are at hand.
    """

    _session: Session | None = field(default=None, compare=False, kw_only=True)

    def plot(self, path: PathName | None = None, *, what: "What" = "all") -> "Picture":
        """The layer's picture: floats and codes over each other, and the error in steps.

        Args:
            path: a file to write it to: .png, .svg or .pdf.
            what: only the ``values``, the ``error`` or the ``channels``; ``all`` for all of it.

        Raises:
            QdebugError: the tensors are not at hand or have no finite element, or the file cannot
                be written.
        """
        from qdebug.render import plots

        target = _picture(path)
        one_of("what", what, plots.WHATS)
        if self.metrics is None or not self.metrics.num_elements:
            raise QdebugError(self.unreadable or plots.nothing_to_draw(self))
        session = _session_of(self._session, f"layer '{shown(self.name)}'")
        found = session.distributions(core.Report([], [self]))
        if self.name not in found:
            raise QdebugError(next(iter(session.reasons(self.name)), plots.nothing_to_draw(self)))
        figure = plots.layer_figure(self, found[self.name], what)
        if target is not None:
            _save(figure, target)
        return figure

    def what_if(self) -> "WhatIf":
        """What other ways to quantize the same floats would give.

        Raises:
            QdebugError: the tensors are not at hand, or cannot be read.
        """
        if self.unreadable:
            raise QdebugError(self.unreadable)
        session = _session_of(self._session, f"layer '{shown(self.name)}'")
        if self.grid is not None:
            raise QdebugError(
                f"layer '{shown(self.name)}': found {printable(self.grid)}, expected one scale and "
                "zero point per tensor or channel to try others"
            )
        return _what_ifs(session, [self.name])[self.name]

    def recommend(self) -> "Recommendation":
        """The smallest change that helps, of those that `what_if` tries; or why none does.

        Raises:
            QdebugError: as `what_if`.
        """
        from qdebug.advise.remedy import recommend

        return recommend(self.what_if())

    def explain(self, width: int = 80) -> str:
        """The layer on one screen, as ``qdebug explain`` prints it.

        Without its tensors (a saved report) it lacks the table of other ways to quantize.

        Raises:
            QdebugError: the layer cannot be read.
        """
        from qdebug.render.explain import explained

        at_least_one("width", width)
        if self.unreadable:
            raise QdebugError(self.unreadable)
        tried = None if self._session is None or self.grid is not None else self.what_if()
        return explained(self, tried, width)

    def __repr__(self) -> str:
        facts = []
        if self.diagnosis is not None:
            facts = list(
                dict.fromkeys(filter(None, (self.diagnosis.verdict, self.diagnosis.cause)))
            )
        if self.metrics is not None and self.metrics.rmse_scale is not None:
            facts.append(f"rmse_scale {self.metrics.rmse_scale:.3g}")
        if self.metrics is not None and self.metrics.times_expected is not None:
            facts.append(f"times_expected {self.metrics.times_expected:.3g}")
        return f"<Layer '{shown(self.name)}': {', '.join(facts)}>"

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_session": None}  # open files and interpreters do not travel

    def _repr_png_(self) -> bytes | None:
        if self._session is not None:
            with suppress(QdebugError):
                return self.plot()._repr_png_()
        return None


@dataclass(frozen=True)
class Report(core.Report):
    """All layers of a source, in its order. In a notebook it shows itself as a table.

    A fresh report can go back to its source's tensors: to draw a layer, or to try other ways to
    quantize it. One that was saved or pickled has the figures alone.

    >>> import numpy as np, qdebug
    >>> x = np.linspace(-1, 1, 1000)
    >>> report = qdebug.analyze({"conv1": qdebug.quantize(x)})
    >>> report
    <Report 1 layer, 1,000 elements: 1 ok>
    >>> [layer.name for layer in report], "conv1" in report, report["conv1"].diagnosis.cause
    (['conv1'], True, 'ok')
    """

    layers: Sequence[Layer]
    _session: Session | None = field(default=None, compare=False, kw_only=True)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __contains__(self, name: object) -> bool:
        return any(layer.name == name for layer in self.layers)

    def __getitem__(self, name: str) -> Layer:
        """The layer of this name, or the only one that has `name` as a part of its name.

        Raises:
            UnknownLayerError: there is no such layer, or there are several. It is a KeyError and a
                QdebugError.
        """
        if not isinstance(name, str):
            raise UnknownLayerError(f"found {name!r:.60}, expected a layer's name")
        try:
            (found,) = find([layer.name for layer in self.layers], name, part=True)
        except QdebugError as error:
            raise UnknownLayerError(str(error)) from None
        except ValueError:
            raise UnknownLayerError(f"'{shown(name)}' is a glob for several layers") from None
        return next(layer for layer in self.layers if layer.name == found)

    def worst(self, n: int = 5) -> list[Layer]:
        """The `n` layers whose error is the largest multiple of what rounding alone gives.

        Layers that have no figures are left out.
        """
        at_least_one("n", n)
        measured = [layer for layer in self.layers if layer.badness >= 0]
        return sorted(measured, key=lambda layer: -layer.badness)[:n]

    def check(
        self,
        *,
        fail_on: str | Sequence[str] = (),
        config: PathName | None = None,
        **limits: float | str,
    ) -> CheckResult:
        """Check every layer against limits, as ``qdebug check`` does.

        Args:
            fail_on: causes that no layer may have.
            config: a configuration file whose limits apply, too.
            limits: ``max_rmse_scale``, ``max_mean_error`` (steps), ``max_times_expected`` (of the
                error of rounding alone), ``min_sqnr`` (dB),
                ``max_range_waste``, ``max_clipped``, ``max_saturated`` (shares: 0.01 or "1%") and
                ``max_abs_error``; ``min_output_sqnr`` (dB) and ``min_top1`` (share) for the model's
                outputs. Without any limit ``max_rmse_scale=0.7`` and ``min_output_sqnr=10``.

        Returns:
            What is over a limit (`failures`); true where nothing is and all could be read.

        >>> import qdebug
        >>> report = qdebug.analyze({"conv1": qdebug.quantize([0.1, 0.2, 0.7])})
        >>> bool(report.check(max_rmse_scale=0.5, max_clipped="1%"))
        True

        Raises:
            QdebugError: no such limit or cause, or a bound that is none.
        """
        from qdebug.report.configuration import read_config

        read = Config() if config is None else read_config(Path(file_name(config)))
        causes = parse_causes(texts("fail_on", fail_on), "fail_on")
        return check(
            self,
            limits_of(limits),
            dict.fromkeys(read.fail_on, str(read.path)) | dict.fromkeys(causes, "fail_on"),
            read,
        )

    def suggest(
        self, *, top: int | None = None, budget: float | str | None = None
    ) -> "Suggestions":
        """The operators to leave in float, the one that helps most first.

        Args:
            top: how many to keep, from the first.
            budget: only the fewest that together remove this share of what all suggested operators
                remove: 0.8 or "80%". That is the default without `top`.

        Raises:
            QdebugError: the report has no operator to judge, or a bad number.
        """
        from qdebug.advise.suggest import DEFAULT_BUDGET, chosen, suggestions

        at_least_one("top", top)
        share = DEFAULT_BUDGET if top is None else None
        if budget is not None:
            share = parse_share(budget, "budget")
        found = suggestions(self)
        return replace(found, candidates=chosen(found.candidates, top=top, budget=share))

    @overload
    def suggest_for(
        self,
        form: Literal["names", "tflite", "onnxruntime"],
        *,
        top: int | None = None,
        budget: float | str | None = None,
    ) -> list[str]: ...
    @overload
    def suggest_for(
        self,
        form: Literal["ai-edge-quantizer"],
        *,
        top: int | None = None,
        budget: float | str | None = None,
    ) -> list[dict[str, Any]]: ...
    def suggest_for(
        self, form: str, *, top: int | None = None, budget: float | str | None = None
    ) -> list[Any]:
        """The operators to leave in float, as a converter takes them (docs/selective.md).

        Args:
            form: ``tflite`` for ``QuantizationDebugOptions(denylisted_nodes=...)``,
                ``onnxruntime`` for ``quantize_static(nodes_to_exclude=...)``, ``ai-edge-quantizer``
                for ``Quantizer.load_quantization_recipe``; ``names`` for the layers' own names.
            top: as for `suggest`.
            budget: as for `suggest`.

        Raises:
            QdebugError: as `suggest`; or the report is on models of another kind.
        """
        from qdebug.render.suggestions import check_form, values

        check_form(form, self.sources)
        return values(form, self, self.suggest(top=top, budget=budget).candidates)

    def apply(
        self,
        path: PathName,
        *,
        top: int | None = None,
        budget: float | str | None = None,
        calibration: "Inputs | None" = None,
    ) -> "Requantized":
        """Quantize the float model again, with the operators of `suggest` in float.

        ONNX models go through ONNX Runtime's ``quantize_static`` with the settings of the quantized
        model, .tflite models through ai-edge-quantizer with the recipe of `suggest_for`.

        Args:
            path: the new model's file, written whole or not at all.
            top: as for `suggest`.
            budget: as for `suggest`.
            calibration: samples for the ranges of activations; without them, those of the report.

        Returns:
            The model, and the figures of its outputs against the float model's, ``before`` and
            ``after``, on the report's samples.

        Raises:
            QdebugError: as `suggest_for`; the report is not fresh from two models; the converter is
                missing or fails; or the file cannot be written.
        """
        target = Path(file_name(path))
        check_writable(target)
        return self._apply(target, self.suggest(top=top, budget=budget).candidates, calibration)

    def _apply(
        self, path: Path, kept: "Sequence[Suggestion]", calibration: "Inputs | None"
    ) -> "Requantized":
        """Write the model with these operators in float."""
        from qdebug.render.suggestions import values
        from qdebug.sources.onnx.source import OnnxModels
        from qdebug.sources.tflite.source import LitertModels

        source = None if self._session is None else self._session.source
        if isinstance(source, OnnxModels):
            found = source.requantized(values("onnxruntime", self, kept), calibration)
        elif isinstance(source, LitertModels):
            found = source.requantized(values("ai-edge-quantizer", self, kept), calibration)
        else:
            raise QdebugError(
                "found a report without its models, expected one fresh from a float and a "
                "quantized model"
            )
        with whole_file(path) as file:
            file.write(found.model)
        return found

    def plot(self, path: PathName | None = None) -> "Picture":
        """A picture of all layers' RMSE/scale against 0.289.

        Args:
            path: a file to write it to: .png, .svg or .pdf.

        Raises:
            QdebugError: no layer has a finite element, or the file cannot be written.
        """
        from qdebug.render import plots

        target = _picture(path)
        figure = plots.overview_figure(self)
        if target is not None:
            _save(figure, target)
        return figure

    def plot_layers(self, folder: PathName, layers: str | Sequence[str] = ()) -> list[Path]:
        """Draw layers, each to a PNG file of its name; all in one pass over the source.

        Args:
            folder: where the files go; made where it is missing.
            layers: names or globs; all layers where there is none.

        Returns:
            The files. A layer that is unreadable or has no finite element has none.

        Raises:
            QdebugError: the tensors are not at hand, or a file cannot be written.
        """
        from qdebug.render import plots

        chosen = self._chosen(layers)
        session = _session_of(self._session, "the report")
        target = Path(file_name(folder))
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise QdebugError(f"{printable(str(target))}: {error.strerror}") from None
        found = session.distributions(core.Report([], chosen))
        drawn = [layer for layer in chosen if layer.name in found]
        paths = [target / f"{stem}.png" for stem in file_stems(layer.name for layer in drawn)]
        for layer, path in zip(drawn, paths, strict=True):
            _save(plots.layer_figure(layer, found[layer.name]), path)
        return paths

    def what_if(self, layers: str | Sequence[str] = ()) -> "dict[str, WhatIf]":
        """What other ways to quantize layers would give, by layer; in two passes over the source.

        Args:
            layers: names or globs; all readable layers where there is none.

        Raises:
            QdebugError: the tensors are not at hand, or cannot be read.
        """
        chosen = self._chosen(layers)
        session = _session_of(self._session, "the report")
        return _what_ifs(session, [layer.name for layer in chosen if not layer.unreadable])

    def to_text(
        self,
        form: str = "table",
        *,
        columns: str | Sequence[str] | None = None,
        per_channel: bool = False,
        sort: str | None = None,
        top: int | None = None,
    ) -> str:
        """The report as ``qdebug report`` writes it.

        Args:
            form: ``table``, ``markdown``, ``csv``, ``json`` or ``tflite-csv``.
            columns: only these columns, in this order.
            per_channel: whether a layer with channels gets one row per channel.
            sort: a column to sort by, the worst first.
            top: how many layers to keep, from the first.

        >>> import qdebug
        >>> report = qdebug.analyze({"conv1": qdebug.quantize([0.1, 0.2, 0.7])})
        >>> print(report.to_text("csv", columns=["layer", "num_elements"]), end="")
        layer,num_elements
        conv1,3

        Raises:
            QdebugError: no such form or column.
        """
        from qdebug.render.columns import View
        from qdebug.render.forms import check_form, pieces

        at_least_one("top", top)
        names = None if columns is None else texts("columns", columns)
        view = View(names, per_channel, sort, top)
        check_form(form, view)
        text = "".join(pieces(self, form, view))
        if form == "table":
            import click

            return click.unstyle(text)
        return text

    def to_html(self, *, histograms: int = 50) -> str:
        """The report as one HTML page that opens anywhere and requests nothing (docs/html.md).

        Args:
            histograms: how many layers get histograms, from the worst; a report that was saved or
                pickled has none.

        >>> import qdebug
        >>> page = qdebug.analyze({"conv1": qdebug.quantize([0.1, 0.2, 0.7])}).to_html()
        >>> page.startswith("<!doctype html>"), "conv1" in page
        (True, True)

        Raises:
            QdebugError: jinja2 is not installed, or a bad number.
        """
        from qdebug.render.html.page import html_page

        if isinstance(histograms, bool) or not isinstance(histograms, int) or histograms < 0:
            raise QdebugError(f"histograms: found {histograms!r:.60}, expected 0 or more")
        found = {}
        if self._session is not None and histograms:
            drawn = [layer for layer in self.layers if layer.metrics and layer.metrics.num_elements]
            worst = sorted(drawn, key=lambda layer: -layer.badness)[:histograms]
            found = self._session.distributions(core.Report([], worst))
        return html_page(self, found)

    def to_pandas(self, *, per_channel: bool = False) -> "pd.DataFrame":
        """A data frame: a row for each layer, a column for each figure.

        Args:
            per_channel: whether a layer with channels gets one row per channel; adds the column
                ``channel``.

        Raises:
            QdebugError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError("to_pandas() needs", "pandas") from None
        from qdebug.render.columns import COLUMNS, View, rows

        body = list(rows(self, View(per_channel=per_channel)))
        names = [name for name in COLUMNS if per_channel or name != "channel"]
        values = {name: [COLUMNS[name].value(row) for row in body] for name in names}
        return pd.DataFrame(values).set_index("layer")

    def save(self, path: PathName) -> None:
        """Write the report as JSON (docs/report.md), for `qdebug.load` and the command line.

        Args:
            path: a file whose name ends in ``.json``.

        Raises:
            QdebugError: another name, or it cannot be written.
        """
        from qdebug.report.json import json_pieces

        target = _ending(path, ".json")
        with whole_file(target) as file:
            for piece in json_pieces(self):
                file.write(piece.encode())

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        from qdebug.render.table import head

        found = Counter(layer.diagnosis.verdict for layer in self.layers if layer.diagnosis)
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in found.most_common())
        return f"<Report {head(self)}{': ' if verdicts else ''}{verdicts}>"

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_session": None}

    def _repr_html_(self) -> str:
        from qdebug.render.notebook import html_table

        return html_table(self)

    def _chosen(self, layers: str | Sequence[str]) -> list[Layer]:
        """The layers that names or globs mean; all where there is none."""
        names = [layer.name for layer in self.layers]
        patterns = texts("layers", layers)
        chosen = set(find_all(names, patterns)) if patterns else set(names)
        return [layer for layer in self.layers if layer.name in chosen]


def with_session(report: core.Report, session: Session | None = None) -> Report:
    """The report, able to go back to the tensors of its session."""
    layers = [
        Layer(**_fields(layer), _session=session if layer.metrics else None)
        for layer in report.layers
    ]
    return Report(**_fields(report) | {"layers": layers}, _session=session)


def _fields(value: core.Report | core.LayerReport) -> dict[str, Any]:
    kind = core.Report if isinstance(value, core.Report) else core.LayerReport
    return {each.name: getattr(value, each.name) for each in fields(kind)}


def _session_of(session: Session | None, what: str) -> Session:
    if session is None:
        raise QdebugError(
            f"{what}: its tensors are not at hand: found a report that was saved, expected one "
            "fresh from qdebug.analyze"
        )
    return session


def _what_ifs(session: Session, names: Sequence[str]) -> "dict[str, WhatIf]":
    from qdebug.advise.whatif import explore

    _, found = explore(session, names)
    for name in names:
        if name not in found:
            raise QdebugError(session.reasons(name)[0])
    return found


def _picture(path: PathName | None) -> Path | None:
    from qdebug.render.plots import ENDINGS

    return None if path is None else _ending(path, *ENDINGS)


def _ending(path: PathName, *endings: str) -> Path:
    target = Path(file_name(path))
    if target.suffix.lower() not in endings:
        raise QdebugError(
            f"found '{printable(str(target))}', expected a name that ends in {', '.join(endings)}"
        )
    return target


def _save(figure: "Picture", path: Path) -> None:
    from qdebug.render import plots

    with whole_file(path) as file:
        plots.save(figure, file, path.suffix.lower())
