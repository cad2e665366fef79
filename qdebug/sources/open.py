"""Open a source by its names: pair files, models that run, weight files, or a saved report."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qdebug.arguments import at_least_one, one_of
from qdebug.errors import OptionError, QdebugError
from qdebug.measure.layer import Source
from qdebug.names import printable
from qdebug.report.report import Report
from qdebug.text_file import read_text

if TYPE_CHECKING:
    from qdebug.run.board import Board
    from qdebug.run.workers import Workers
    from qdebug.sources.inputs import Inputs
    from qdebug.sources.tflite.run import Kernels

_MODELS = (".tflite", ".onnx")
_WEIGHTS = (".gguf", ".safetensors", ".safetensors.index.json")
_REPORTS = (".json", ".csv")

_PAIR_FILES = "pair files (.npz)"
_FILES = "pair files (.npz) and weight files"
_LITERT = "LiteRT models (.tflite)"
_LIVE = "a float and a quantized model"
_TENSORS = "tensors: pair files or models"


@dataclass(frozen=True)
class Options:
    """How to read a source. None means that an option is not given.

    Attributes:
        keys: how pair files name their arrays: field -> template, ``{}`` for the layer.
        inputs: the samples to run live models on.
        samples: how many of them to use, from the first.
        kernels: LiteRT's kernels that run .tflite models.
        signature: of a .tflite model that has several.
        jobs: threads, or processes of a local cluster.
        scheduler: of a Dask cluster.
    """

    keys: Mapping[str, str] | None = None
    inputs: "Inputs | None" = None
    samples: int | None = None
    kernels: "Kernels | None" = None
    signature: str | None = None
    jobs: int | None = None
    scheduler: str | None = None

    def refuse(self, goes_with: str, *names: str) -> None:
        """Reject options that do not apply here.

        Raises:
            OptionError: one of them is given; the message says what it applies to.
        """
        for name in names:
            if getattr(self, name) is not None:
                raise OptionError(name, goes_with)


def is_saved(names: Sequence[str]) -> bool:
    """Whether a saved report is among the names: figures without tensors."""
    return any(name.lower().endswith(_REPORTS) and not is_weights([name]) for name in names)


def is_live(names: Sequence[str]) -> bool:
    """Whether a model is among the names."""
    return any(name.lower().endswith(_MODELS) for name in names)


def is_weights(names: Sequence[str]) -> bool:
    """Whether a weight file, or a folder of such, is among the names."""
    return any(name.lower().endswith(_WEIGHTS) or _is_folder(name) for name in names)


def _is_folder(name: str) -> bool:
    other = name.lower().endswith((".npz", *_MODELS, *_REPORTS))
    return not other and os.path.isdir(name)  # noqa: PTH112 - any text


def check_options(names: Sequence[str], options: Options) -> None:
    """Check that all options apply to this source, before anything is read.

    Raises:
        OptionError: one does not.
        QdebugError: no name, names that do not go together, or an option with an invalid value.
    """
    if not names:
        raise QdebugError("found no source, expected pair files, two models or a report")
    _check_values(options)
    if is_saved(names):
        if len(names) > 1:
            raise QdebugError("found a report (.json, .csv) among others, expected it alone")
        options.refuse(
            _TENSORS, "inputs", "samples", "kernels", "signature", "keys", "jobs", "scheduler"
        )
    elif is_weights(names):
        if len(names) == 1 and _is_folder(names[0]):
            raise QdebugError(
                f"{printable(names[0])}: Is a directory; expected pair files ('FOLDER/*.npz'), or "
                "two weight files or folders of such: the float one, then the quantized one"
            )
        if len(names) != 2 or not all(is_weights([name]) for name in names):
            raise QdebugError(
                f"found {' and '.join(map(printable, names))}, expected two weight files (.gguf, "
                ".safetensors, or a folder): the float one, then the quantized one"
            )
        options.refuse(_LIVE, "inputs", "samples", "signature")
        options.refuse(_LITERT, "kernels")
        options.refuse(_PAIR_FILES, "keys")
        _check_jobs(options)
    elif not is_live(names):
        options.refuse(_LIVE, "inputs", "samples", "signature")
        options.refuse(_LITERT, "kernels")
        _check_jobs(options)
    else:
        options.refuse(_PAIR_FILES, "keys")
        options.refuse(_FILES, "scheduler")
        if all(name.lower().endswith(".onnx") for name in names):
            options.refuse(_LITERT, "kernels", "signature")
        elif not all(name.lower().endswith(".tflite") for name in names):
            raise QdebugError(
                f"found {' and '.join(map(printable, names))}, expected two models of one kind "
                "(.tflite or .onnx)"
            )


def check_pairs_options(options: Options) -> None:
    """Check that all options apply to pairs in memory: only `jobs` does.

    Raises:
        OptionError: one does not.
        QdebugError: as `check_options`.
    """
    _check_values(options)
    options.refuse(_LIVE, "inputs", "samples", "signature")
    options.refuse(_LITERT, "kernels")
    options.refuse(_PAIR_FILES, "keys")
    options.refuse(_FILES, "scheduler")


def _check_jobs(options: Options) -> None:
    if options.scheduler not in (None, "local"):
        options.refuse("threads and the scheduler 'local'", "jobs")


def _check_values(options: Options) -> None:
    """Check values from Python and configuration; the command line checks its own.

    Raises:
        QdebugError: a value is invalid.
    """
    at_least_one("samples", options.samples)
    at_least_one("jobs", options.jobs)
    if options.kernels is not None:
        from qdebug.sources.tflite.run import KERNELS

        one_of("kernels", options.kernels, KERNELS)
    if options.keys is not None:
        from qdebug.sources.pair_file.fields import check_keys

        check_keys(options.keys)


def open_source(
    names: Sequence[str], options: Options = Options(), workers: "Workers | None" = None
) -> Source:
    """A source of tensors: pair files, read by `workers`, weight files, or a live pair of models.

    Raises:
        QdebugError: a saved report, which holds no tensors; options that do not apply; or an error
            of the source.
    """
    for name in names:
        if is_saved([name]):
            raise QdebugError(
                f"{printable(name)}: found a report, which holds no tensors, expected pair files "
                "or models"
            )
    check_options(names, options)
    if is_weights(names):
        from qdebug.sources.weights.files import open_weights

        return open_weights(names)
    if not is_live(names):
        from qdebug.sources.pair_file.read import PairFiles

        return PairFiles(names, options.keys, workers)
    if names[0].lower().endswith(".onnx"):
        from qdebug.sources.onnx.source import OnnxModels

        return OnnxModels(names, options.inputs, samples=options.samples)
    from qdebug.sources.tflite.source import LitertModels

    return LitertModels(
        names,
        options.inputs,
        samples=options.samples,
        kernels=options.kernels or "default",
        signature=options.signature,
    )


def open_models(names: Sequence[str], options: Options = Options()) -> Source:
    """A live pair of models.

    Raises:
        QdebugError: the files are not models; or an error of the source.
    """
    if not names or not all(is_live([name]) for name in names):
        raise QdebugError(
            f"found {' and '.join(map(printable, names)) or 'nothing'}, expected two models of one "
            "kind (.tflite or .onnx)"
        )
    return open_source(names, options)


def check_board(names: Sequence[str], options: Options = Options()) -> None:
    """Check that a board can be built of these names, before anything is read.

    Raises:
        QdebugError: the files are not models, or there are no inputs.
    """
    check_options(names, options)
    if not all(is_live([name]) for name in names):
        found = next(name for name in names if not is_live([name]))
        raise QdebugError(
            f"{printable(found)}: found tensors or figures, expected a float and a quantized "
            "model: measuring runs them"
        )
    if options.inputs is None:
        raise QdebugError(
            f"{' and '.join(map(printable, names))}: found no inputs (--inputs), expected samples: "
            "measuring runs the models"
        )


def check_replay(name: str, options: Options = Options()) -> None:
    """Check that a replay can be made of this name, before anything is read.

    Raises:
        QdebugError: the file is not a .tflite, or an option has an invalid value.
    """
    if not name.lower().endswith(".tflite"):
        raise QdebugError(f"{printable(name)}: expected a quantized .tflite model")
    _check_values(options)


def open_board(names: Sequence[str], options: Options = Options()) -> "Board":
    """The switchboard of a live pair of models.

    Raises:
        QdebugError: the files are not models, there are no inputs, the models are not a float and a
            quantized one, or nothing in them can be switched.
    """
    check_board(names, options)
    assert options.inputs is not None
    if names[0].lower().endswith(".onnx"):
        from qdebug.sources.onnx import switchboard as of_onnx

        return of_onnx.board(names, options.inputs, samples=options.samples)
    from qdebug.sources.tflite.board import switchboard as of_tflite

    return of_tflite.board(
        names,
        options.inputs,
        samples=options.samples,
        kernels=options.kernels or "default",
        signature=options.signature,
    )


def saved_report(name: str) -> Report:
    """The report in a file: JSON, or the CSV of TFLite's debugger.

    Raises:
        QdebugError: no such file, or it is not a report.
    """
    if name.lower().endswith(".csv"):
        from qdebug.report.tflite_csv import read_csv

        return read_csv(name)
    from qdebug.report.json import loads

    shown = printable(name)
    try:
        return loads(read_text(name), shown)
    except OSError as error:
        raise QdebugError(f"{shown}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise QdebugError(f"{shown}: found no text, expected JSON") from None
