"""What qdebug's commands are compared with; each prints its seconds without imports.

python peers.py load FILE
"""

import sys
import time
import zipfile  # noqa: F401 - numpy.load would import it during the measurement
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Compare = Callable[[Array, Array], object]  # of the float and the dequantized tensor

# peer -> its package
PACKAGES = {"onnxruntime": "onnxruntime", "ai-edge-quantizer": "ai_edge_quantizer"}


def tflite_formulas() -> Compare:
    """The figures that TFLite's debugger computes for each tensor of differences."""

    def compare(floats: Array, dequantized: Array) -> object:
        difference = dequantized - floats
        return (
            difference.size,
            np.std(difference),
            np.mean(difference),
            np.max(np.abs(difference)),
            np.mean(np.square(difference)),
        )

    return compare


def onnxruntime() -> Compare:
    """The only figure of ONNX Runtime's debugger: SQNR."""
    from onnxruntime.quantization import qdq_loss_debug

    sqnr: Compare = qdq_loss_debug.compute_signal_to_quantization_noice_ratio
    return sqnr


def ai_edge_quantizer() -> Compare:
    """The three figures of ai-edge-quantizer that qdebug has too."""
    from ai_edge_quantizer.utils import validation_utils

    def compare(floats: Array, dequantized: Array) -> object:
        return (
            validation_utils.mean_squared_difference(dequantized, floats),
            validation_utils.cosine_similarity(dequantized, floats),
            validation_utils.signal_to_noise_ratio(dequantized, floats),
        )

    return compare


def pairs(path: str) -> Iterator[tuple[Array, Array]]:
    """The float and dequantized tensors of each layer with one scale, one layer at a time."""
    with np.load(path) as file:
        for key in file.files:
            layer, _, field = key.rpartition("/")
            if field == "float":
                codes = file[f"{layer}/quantized"].astype(np.float32)
                codes -= np.float32(file[f"{layer}/zero_point"])
                codes *= np.float32(file[f"{layer}/scale"])
                yield file[key], codes


def load(path: str) -> None:
    """Load all arrays, one in memory at a time."""
    with np.load(path) as file:
        for key in file.files:
            file[key]


def load_all(path: str) -> None:
    """Load all arrays and keep them."""
    with np.load(path) as file:
        dict(file)


def reading() -> Callable[[str], None]:
    """The work before qdebug computes: open, read, check CRC-32, cut into blocks."""
    from qdebug.measure.layer import Block, Layer
    from qdebug.sources.pair_file.read import PairFiles

    class Nobody:
        """A visitor that ignores all data."""

        def take(self, layer: Layer, block: Block) -> None:
            pass

        def fail(self, layer: Layer, reason: str) -> None:
            raise AssertionError(reason)

    def read(path: str) -> None:
        source = PairFiles([path])
        for part in source.parts([x for x in source.layers if isinstance(x, Layer)]):
            part.read(Nobody())

    return read


def compare_models(floats: str, quantized: str, inputs: str, count: int, threads: int) -> None:
    """ai-edge-quantizer's comparison of all tensors of two models, on the first samples."""
    from ai_edge_quantizer import model_validator
    from ai_edge_quantizer.utils.tfl_interpreter_utils import DEFAULT_SIGNATURE_KEY

    ((name, samples),) = np.load(inputs).items()
    model_validator.compare_model(
        Path(floats).read_bytes(),
        Path(quantized).read_bytes(),
        {DEFAULT_SIGNATURE_KEY: [{name: sample[np.newaxis]} for sample in samples[:count]]},
        num_threads=threads,
    )


def comparing(make: Callable[[], Compare]) -> Callable[[str], None]:
    """A function that applies a comparison to all pairs of a file."""
    compare = make()

    def run(path: str) -> None:
        for floats, dequantized in pairs(path):
            compare(floats, dequantized)

    return run


# Each imports what it needs, then returns the function to time.
TIMED: dict[str, Callable[[], Callable[[str], None]]] = {
    "load": lambda: load,
    "load-all": lambda: load_all,
    "reading": reading,
    "tflite-formulas": lambda: comparing(tflite_formulas),
    "onnxruntime": lambda: comparing(onnxruntime),
    "ai-edge-quantizer": lambda: comparing(ai_edge_quantizer),
}


def main() -> None:
    """Run one of the measurements."""
    name, path, *more = sys.argv[1:]
    if name == "compare-models":
        quantized, inputs, count, threads = more
        compare_models(path, quantized, inputs, int(count), int(threads))
        return
    timed = TIMED[name]()
    start = time.perf_counter()
    timed(path)
    print("inside", time.perf_counter() - start, file=sys.stderr)


if __name__ == "__main__":
    main()
