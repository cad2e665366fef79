"""What `qdebug suggest` gains, against leaving out as many operators at random.

Quantizes a float model of scikit-learn's digits (.tflite with ai-edge-quantizer, .onnx with ONNX
Runtime), lets qdebug suggest K operators to leave in float, and quantizes again without them. The
SQNR of the model's output is compared with the mean, best and worst of other choices of K: all of
them, or `DRAWS` drawn at random. The suggestion is made on 40 samples; SQNR is taken over 320
others. Neither training nor calibration has seen any of these.

    pip install -e '.[all]' ai-edge-quantizer==0.10.0 scikit-learn==1.9.1
    python benchmarks/selective.py sample_models/digits_float.tflite --bits 8
    python benchmarks/selective.py sample_models/digits_float.tflite --bits 4
    python benchmarks/selective_models.py           # larger ones; the .tflite ones need TensorFlow
    python benchmarks/selective.py build/selective/blocks-1.tflite --bits 4
    python benchmarks/selective.py build/selective/mlp.onnx --bits 8
"""

import argparse
import ast
import contextlib
import importlib.metadata
import io
import itertools
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from qdebug.advise.suggest import suggestions
from qdebug.cli import main as qdebug
from qdebug.report.json import loads
from qdebug.report.report import Report

Array = NDArray[Any]
Outputs = dict[str, Array]  # tensor -> its values for all samples

SEED = 20  # the seed with which sample_models/make_samples.py splits the data
CALIBRATION_SAMPLES = 200
SUGGESTION_SAMPLES = 40
DRAWS = 60


def split_digits() -> tuple[Array, Array]:
    """Images for calibration, and held-out ones: the split of sample_models/make_samples.py."""
    digits = load_digits()
    images = (digits.images[..., np.newaxis] / 16.0).astype(np.float32)
    train, test, _, _ = train_test_split(
        images, digits.target, test_size=0.2, random_state=SEED, stratify=digits.target
    )
    return train[:CALIBRATION_SAMPLES], test


class Litert:
    """A .tflite model, quantized with ai-edge-quantizer; operators are named by their output."""

    form = "ai-edge-quantizer"

    def __init__(self, path: Path, bits: int, calibration: Array) -> None:
        from ai_edge_litert.interpreter import Interpreter
        from ai_edge_quantizer import recipe

        self.path = path
        self._base = recipe.static_wi8_ai8()
        self._base[0]["op_config"]["weight_tensor_config"]["num_bits"] = bits
        interpreter = Interpreter(str(path))
        ((signature, names),) = interpreter.get_signature_list().items()
        self.input_name = names["inputs"][0]
        # One batch of all samples: over several batches, ai-edge-quantizer takes a moving average
        # of the ranges.
        self._calibration = {signature: [{self.input_name: calibration}]}
        self._ranges: Any = None
        details = interpreter._get_ops_details()
        self.operators = [
            interpreter._get_tensor_details(operator["outputs"][0], 0)["name"]
            for operator in details
            if operator["op_name"] != "DELEGATE"
        ]
        ops = [o["op_name"] for o in details if o["op_name"] != "DELEGATE"]
        ends_in_softmax = ops[-1] == "SOFTMAX"
        self.outputs = dict(
            zip(["softmax", "logits"], self.operators[::-1], strict=False)
            if ends_in_softmax
            else [("logits", self.operators[-1])]
        )
        self.quantized_name = "quantized.tflite"

    def leaving(self, operators: Sequence[str]) -> Any:
        """The recipe that leaves these operators in float, written without qdebug."""
        import re

        return self._base + [
            {"regex": f"^{re.escape(o)};$", "operation": "*", "algorithm_key": "no_quantize"}
            for o in operators
        ]

    def as_suggested(self, text: str) -> Any:
        """The recipe that `qdebug suggest` wrote."""
        recipe = json.loads(text)
        bits = self._base[0]["op_config"]["weight_tensor_config"]["num_bits"]
        assert recipe[0]["op_config"]["weight_tensor_config"]["num_bits"] == bits
        return recipe

    def quantized(self, how: Any) -> bytes:
        """The quantized model."""
        from ai_edge_quantizer import quantizer

        made = quantizer.Quantizer(str(self.path))
        made.load_quantization_recipe(how)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if self._ranges is None:
                self._ranges = made.calibrate(self._calibration, num_threads=1)
            return bytes(made.quantize(self._ranges, enable_progress_report=False).quantized_model)

    def run(self, model: bytes, images: Array) -> Outputs:
        """The outputs, dequantized."""
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        interpreter = Interpreter(
            model_content=model,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        interpreter.allocate_tensors()
        given = interpreter.get_input_details()[0]
        by_name = {t["name"]: t for t in interpreter.get_tensor_details()}
        found: dict[str, list[Array]] = {output: [] for output in self.outputs}
        for image in images:
            values = image[np.newaxis]
            scale, zero_point = given["quantization"]
            if scale:
                codes = np.rint(values.astype(np.float64) / scale) + zero_point
                values = codes.clip(-128, 127).astype(given["dtype"])
            interpreter.set_tensor(given["index"], values)
            interpreter.invoke()
            for output, tensor in self.outputs.items():
                detail = by_name[tensor]
                codes = interpreter.get_tensor(detail["index"]).astype(np.float64)
                scale, zero_point = detail["quantization"]
                found[output].append((codes - zero_point) * scale if scale else codes)
        return {output: np.stack(values) for output, values in found.items()}


class Onnx:
    """An .onnx model, quantized with ONNX Runtime's quantize_static; operators are node names."""

    form = "onnxruntime"

    def __init__(self, path: Path, bits: int, calibration: Array) -> None:
        import onnx

        self.path, self._bits, self._calibration = path, bits, calibration
        model = onnx.load(path)
        self.input_name = model.graph.input[0].name
        self.operators = [node.name for node in model.graph.node if node.op_type != "Relu"]
        self.outputs = {"logits": model.graph.output[0].name}
        self.quantized_name = "quantized.onnx"

    def leaving(self, operators: Sequence[str]) -> Any:
        """The list that leaves these operators in float."""
        return list(operators)

    def as_suggested(self, text: str) -> Any:
        """The list that `qdebug suggest` wrote."""
        return ast.literal_eval(text)

    def quantized(self, how: Any) -> bytes:
        """The quantized model."""
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self, name: str, images: Array) -> None:
                self._samples = iter([{name: image[np.newaxis]} for image in images])

            def get_next(self) -> Any:
                return next(self._samples, None)

        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "quantized.onnx"
            quantize_static(
                self.path,
                out,
                Reader(self.input_name, self._calibration),
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8 if self._bits == 8 else QuantType.QInt4,
                per_channel=self._bits == 8,
                nodes_to_exclude=how,
            )
            return out.read_bytes()

    def run(self, model: bytes, images: Array) -> Outputs:
        """The outputs."""
        import onnxruntime

        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        runs = [session.run(None, {self.input_name: image[np.newaxis]})[0] for image in images]
        return {"logits": np.stack(runs)}


def sqnr(reference: Outputs, found: Outputs) -> dict[str, float]:
    """10 log10(sum x^2 / sum e^2) of every output, in dB."""
    return {
        output: float(10 * np.log10(np.sum(x**2) / np.sum((found[output] - x) ** 2)))
        for output, x in reference.items()
    }


def command(*arguments: object) -> None:
    """Run qdebug as from the command line."""
    with contextlib.redirect_stderr(io.StringIO()):
        qdebug([str(argument) for argument in arguments], standalone_mode=False)


def without_model_run(report: Report) -> Report:
    """The report as from a pair file without model_float."""
    return replace(
        report,
        layers=[
            replace(
                layer, metrics=layer.metrics and replace(layer.metrics, inherited_rmse_scale=None)
            )
            for layer in report.layers
        ],
    )


def correlations(report: Report, operators: Sequence[str], gains: Sequence[float]) -> str:
    """Spearman's rank correlation between each ranking and the gain of leaving one operator out."""
    found = suggestions(report).candidates
    local = suggestions(without_model_run(report)).candidates
    ways = {
        "removes": {name: s.removes for s in found for name in s.nodes},
        "share": {name: s.share for s in found for name in s.nodes},
        "removes, local": {name: s.removes for s in local for name in s.nodes},
    }
    return ", ".join(
        f"{way} {spearmanr([values.get(o, 0.0) for o in operators], gains)[0]:+.2f}"
        for way, values in ways.items()
    )


def study(model: Litert | Onnx, tops: Sequence[int], folder: Path) -> None:
    """Print the gain for each K."""
    _, images = split_digits()
    told, held_out = images[:SUGGESTION_SAMPLES], images[SUGGESTION_SAMPLES:]
    reference = model.run(model.path.read_bytes(), held_out)

    def gain(how: Any) -> dict[str, float]:
        found = sqnr(reference, model.run(model.quantized(how), held_out))
        return {output: value - base[output] for output, value in found.items()}

    whole = model.quantized(model.leaving([]))
    base = dict.fromkeys(model.outputs, 0.0) | sqnr(reference, model.run(whole, held_out))
    quantized, inputs, saved = (folder / n for n in (model.quantized_name, "in.npz", "report.json"))
    quantized.write_bytes(whole)
    np.savez(inputs, **{model.input_name: told})
    command("report", model.path, quantized, "--inputs", inputs, "-o", saved)
    report = loads(saved.read_text(), str(saved))
    print(f"\nfully quantized: {', '.join(f'{o} {v:.2f} dB' for o, v in base.items())}")

    singles = [gain(model.leaving([operator])) for operator in model.operators]
    for output in model.outputs:
        ranked = correlations(report, model.operators, [single[output] for single in singles])
        print(f"rank correlation with the gain of leaving one operator out, {output}: {ranked}")
    print(
        "\n| left in float | output | suggested | random: mean | best | worst | at least as good |"
    )
    print("|---|---|---|---|---|---|---|")
    draw = np.random.default_rng(0)
    for top in tops:
        recipe = folder / "recipe"
        command("suggest", saved, "--for", model.form, "--top", top, "-o", recipe)
        suggested = gain(model.as_suggested(recipe.read_text()))
        choices = list(itertools.combinations(model.operators, top))
        every = len(choices) <= DRAWS
        if not every:
            choices = [choices[i] for i in draw.choice(len(choices), DRAWS, replace=False)]
        others = singles if top == 1 else [gain(model.leaving(c)) for c in choices]
        for output in model.outputs:
            values = np.array([other[output] for other in others])
            share = np.mean(values > suggested[output] + 1e-9)
            print(
                f"| {top} | {output} | {suggested[output]:+.2f} dB | {values.mean():+.2f} | "
                f"{values.max():+.2f} | {values.min():+.2f} | "
                f"{100 * (1 - share):.0f} % of {'all ' if every else ''}{len(values)} |"
            )


def main() -> None:
    """Study one model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help=".tflite or .onnx, for 8x8 images of digits")
    parser.add_argument("--bits", type=int, choices=(4, 8), default=8, help="of the weights")
    parser.add_argument("--top", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    backend: Callable[[Path, int, Array], Litert | Onnx] = (
        Litert if arguments.model.suffix == ".tflite" else Onnx
    )
    calibration, _ = split_digits()
    model = backend(arguments.model, arguments.bits, calibration)
    packages = ("ai-edge-quantizer", "ai-edge-litert", "onnxruntime", "scikit-learn", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"{arguments.model.name}, {arguments.bits}-bit weights, {len(model.operators)} operators")
    print(f"{datetime.now(UTC):%Y-%m-%d}; {versions}")
    with tempfile.TemporaryDirectory() as folder:
        study(model, arguments.top, Path(folder))


if __name__ == "__main__":
    main()
