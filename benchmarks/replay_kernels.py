"""Which kernels compute which rounding: the table of docs/integer.md.

Replays quantized .tflite models over the runtime's three kernel sets, and prints, for each kind of
operator, the codes compared, the codes that differ under the rounding that fits best, and the
roundings under which none differs.

    python benchmarks/replay_kernels.py                           # the sample model
    python benchmarks/replay_kernels.py int8.tflite=inputs.npz    # others, with their inputs
    python benchmarks/replay_kernels.py int8.tflite               # random inputs: 10 samples

Random inputs are uniform over the range that the model's quantized input can represent.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import numpy as np
from tabulate import tabulate

import qdebug
from qdebug.arithmetic.affine import representable_range
from qdebug.report.replay import OperatorReplay
from qdebug.sources.inputs import Inputs
from qdebug.sources.tflite.layers import params_of
from qdebug.sources.tflite.model import read_model
from qdebug.sources.tflite.run import Kernels

SAMPLE = "sample_models/digits_int8.tflite=sample_models/digits_inputs.npz"
RANDOM_SAMPLES = 10


def random_inputs(path: str) -> dict[str, np.ndarray]:
    """Floats for each input of a model."""
    graph, rng = read_model(path).graph, np.random.default_rng(0)
    found = {}
    for index, name in zip(graph.inputs, graph.input_names, strict=True):
        low, high = -1.0, 1.0
        if graph.is_quantized(index):
            params = params_of(graph.tensors[index])
            ends = params.qmin, params.qmax
            low, high = representable_range(params.scale[0], params.zero_point[0], ends)
        shape = (RANDOM_SAMPLES, *graph.tensors[index].shape[1:])
        found[name] = rng.uniform(low, high, size=shape).astype(np.float32)
    return found


def rows(name: str, kernels: Kernels, operators: Iterable[OperatorReplay]) -> list[list[object]]:
    """A row for each kind of operator."""
    kinds: dict[str, list[OperatorReplay]] = {}
    for operator in operators:
        kinds.setdefault(operator.op, []).append(operator)
    table = []
    for op, found in kinds.items():
        common = set.intersection(*(set(each.matching) for each in found))
        fits = [rounding for rounding in found[0].differing if rounding in common]
        text = (
            (", ".join(fits) or "none for all") if len(fits) < len(found[0].differing) else "every"
        )
        text = "-" if found[0].rounding == "any" else text
        codes = sum(each.num_codes for each in found)
        table.append(
            [name, kernels, op, len(found), codes, sum(each.num_differing for each in found), text]
        )
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=[SAMPLE], metavar="INT8[=INPUTS]")
    body, left = [], []
    for model in parser.parse_args().models:
        path, _, given = model.partition("=")
        inputs: Inputs = given or random_inputs(path)
        for kernels in get_args(Kernels):
            found = qdebug.replay(path, inputs, kernels=kernels)
            body += rows(Path(path).stem, kernels, found.operators)
            left += [f"{Path(path).stem}: {each.op}: {each.reason}" for each in found.unsupported]
    headings = ["model", "kernels", "operator", "count", "codes", "differ", "roundings that fit"]
    print(tabulate(body, headings, "github"))
    for line in dict.fromkeys(left):
        print(f"\nNot replayed: {line}")


if __name__ == "__main__":
    main()
