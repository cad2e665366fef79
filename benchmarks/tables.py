"""The tables of docs/performance.md: what is measured, against what, and which targets it meets."""

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import kernel
import zlibs
from commands import (
    HERE,
    Command,
    compete,
    fast_packages,
    fast_report,
    peer,
    python,
    report,
    script,
    takes_jobs,
)
from pairs import Files
from peers import PACKAGES

SAMPLES = HERE.parent / "sample_models"
MB = 1e6

QDEBUG = "`qdebug report`"
ONE_JOB = f"{QDEBUG} `--jobs 1`"
START = "start-up"
NP_LOAD = "`np.load`, one array after the other"
TFLITE = "`np.load` + TFLite's five formulas"


@dataclass(frozen=True)
class Target:
    """A target for a ratio, and the ratio that was found.

    `why` explains a miss by measurements; it is empty if no measurement does.
    """

    what: str
    found: float
    limit: float
    unit: str = "times"
    at_least: bool = False
    why: str = ""

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return self.found >= self.limit if self.at_least else self.found <= self.limit


@dataclass(frozen=True)
class Section:
    """A table of the page, with the figures that the prose around it quotes."""

    table: str
    targets: Sequence[Target] = ()
    note: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """What single parts of the work cost on this machine, to explain the whole."""

    cores: int
    zlibs: Mapping[str, zlibs.Rates]
    start: float  # seconds of a report of 64 elements
    interpreter: int  # bytes of memory of Python itself


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are figures."""
    rule = ["---"] + ["---:"] * (len(headers) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in (headers, rule, *rows))


def seconds(value: float) -> str:
    """Seconds, to three significant digits."""
    return f"{value:#.3g}"


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.2f}"


def machine(files: Files, rounds: int) -> Machine:
    """Measure the parts."""
    costs = compete({START: report(files.tiny()), "bare": python("pass")}, 3 * rounds)
    cores = os.cpu_count() or 1
    return Machine(cores, zlibs.rates(), costs[START].seconds, costs["bare"].peak)


def stored(files: Files, rounds: int, parts: Machine) -> Section:
    """The pair file as numpy.savez writes it: qdebug against other readers."""
    path = files.stored()
    contenders: dict[str, Command] = {QDEBUG: report(path)}
    if takes_jobs():
        contenders[ONE_JOB] = report(path, "--jobs", 1)
    contenders[f"{QDEBUG} with NumPy's statistics"] = ("env", "QDEBUG_KERNEL=numpy", *report(path))
    if fast := fast_packages(files.tiny()):
        contenders[f"{QDEBUG} with {fast}"] = fast_report(path)
    contenders |= {
        "`cat`": ("cat", path),
        NP_LOAD: peer("load", path),
        "`np.load`, all arrays kept": peer("load-all", path),
        TFLITE: peer("tflite-formulas", path),
    }
    missing = [name for name, package in PACKAGES.items() if not installed(package)]
    if "onnxruntime" not in missing:
        contenders["`np.load` + ONNX Runtime's SQNR"] = peer("onnxruntime", path)
    if "ai-edge-quantizer" not in missing:
        contenders["`np.load` + ai-edge-quantizer's MSE, cosine, SNR"] = peer(
            "ai-edge-quantizer", path
        )
    helpers = {"reading": peer("reading", path), START: report(files.tiny())}
    costs = compete(contenders | helpers, rounds)
    start, reading = costs.pop(START).seconds, costs.pop("reading").inside
    assert reading is not None

    def working(name: str) -> float:
        """Seconds without start-up: as the command reports, or minus those of a tiny report."""
        cost = costs[name]
        if cost.inside is not None:
            return cost.inside
        return cost.seconds - start if name.startswith(QDEBUG) else cost.seconds

    ours = costs[QDEBUG]
    rows = [
        (
            name,
            seconds(cost.seconds),
            times(cost.seconds / ours.seconds),
            seconds(working(name)),
            times(working(name) / working(QDEBUG)),
            f"{max(cost.peak - parts.interpreter, 0) / MB:.0f}",
        )
        for name, cost in costs.items()
    ]
    checksum = path.stat().st_size / parts.zlibs["zlib"].crc32 / parts.cores
    floor = start + checksum
    beside_floor = (
        f"start-up and CRC-32 alone, shared by {parts.cores} cores, take {start:.2f} + "
        f"{checksum:.2f} s"
    )
    load, cat = costs[NP_LOAD].seconds, costs["`cat`"].seconds
    return Section(
        markdown(
            (
                *("", "whole command, s", "relative to qdebug"),
                *("without start-up, s", "relative to qdebug", "memory, MB"),
            ),
            rows,
        ),
        [
            Target(
                "stored file: times as fast as `np.load` of its arrays",
                load / ours.seconds,
                1.3,
                at_least=True,
                why=f"{beside_floor}: at best {load / floor:.2f} times as fast",
            ),
            Target(
                "stored file: times as fast as `np.load` and TFLite's formulas",
                costs[TFLITE].seconds / ours.seconds,
                3.5,
                at_least=True,
                why=f"{beside_floor}: at best {costs[TFLITE].seconds / floor:.2f} times as fast",
            ),
            Target(
                "stored file: times as long as `cat` and a report of 64 elements",
                ours.seconds / (cat + start),
                1.6,
                why=f"{beside_floor}: at best {floor / (cat + start):.2f} times as long",
            ),
        ],
        note=f"Not installed, so not measured: {', '.join(missing)}." if missing else "",
        facts={
            "size": path.stat().st_size / MB,
            "elements": 8 * 64 * files.elements(131072) / 1e6,
            "load": ours.seconds / load,
            "tflite": ours.seconds / costs[TFLITE].seconds,
            "start": start,
            "reading": reading,
            "one_job": costs.get(ONE_JOB, ours).seconds,
        },
    )


def installed(package: str) -> bool:
    """Whether the package can be imported."""
    return importlib.util.find_spec(package) is not None


def compressed(files: Files, rounds: int, parts: Machine) -> Section:
    """The same file, and one of activations, as numpy.savez_compressed writes them."""
    fast = fast_packages(files.tiny(compressed=True))
    with_fast = f"{QDEBUG} with {fast}"
    size = files.stored().stat().st_size
    rows, targets = [], []
    for what, path, inflate in (
        (
            "normal numbers",
            files.stored(compressed=True),
            {name: rates.inflate_normal for name, rates in parts.zlibs.items()},
        ),
        (
            "activations",
            files.activations(),
            {name: rates.inflate_activations for name, rates in parts.zlibs.items()},
        ),
    ):
        contenders = {NP_LOAD: peer("load", path), QDEBUG: report(path)}
        if fast:
            contenders[with_fast] = fast_report(path)
        costs = compete(contenders, rounds)
        speed = {name: costs[NP_LOAD].seconds / cost.seconds for name, cost in costs.items()}
        rows += [
            (f"{what}: {name}", seconds(cost.seconds), times(speed[name]))
            for name, cost in costs.items()
        ]
        target = f"compressed file, {what}: times as fast as `np.load`"
        why = {}
        for library, rate in inflate.items():
            floor = parts.start + size / rate / parts.cores
            why[library] = (
                f"start-up and inflating with {library}, shared by {parts.cores} cores, take "
                f"{floor:.2f} s: at best {costs[NP_LOAD].seconds / floor:.2f} times as fast"
            )
        targets.append(Target(target, speed[QDEBUG], 1.6, at_least=True, why=why["zlib"]))
        if fast:
            target = f"{target}, with {fast}"
            quickest = max(inflate, key=lambda library: inflate[library])
            targets.append(Target(target, speed[with_fast], 2, at_least=True, why=why[quickest]))
    note = "" if fast else "Neither isal nor zlib-ng is used here, so neither is in the table."
    return Section(markdown(("", "s", "times as fast"), rows), targets, note)


def shapes(files: Files, rounds: int) -> Section:
    """Types, and channels on each axis, relative to float32 and int8 with one scale."""
    base = "float32, int8, one scale"
    paths = {
        base: files.typed("float32", "int8"),
        "float16": files.typed("float16", "int8"),
        "float64": files.typed("float64", "int8"),
        "int16": files.typed("float32", "int16"),
    }
    promised = ["float16", "int16"]
    for channels in (64, 256):
        for axis in ("first", "middle", "last"):
            name = f"{channels} channels, axis {axis}"
            paths[name] = files.typed("float32", "int8", channels=channels, axis=axis)
            promised.append(name)
    commands = {name: report(path) for name, path in paths.items()}
    costs = compete(commands | {START: report(files.tiny())}, rounds)
    took = {name: costs[name].seconds - costs[START].seconds for name in paths}
    ratios = {name: value / took[base] for name, value in took.items()}
    rows = [(name, seconds(took[name]), times(ratios[name])) for name in paths]
    targets = [Target(f"{name}: times as long as {base}", ratios[name], 1.5) for name in promised]
    return Section(markdown(("", "without start-up, s", "ratio"), rows), targets)


def many(files: Files, rounds: int) -> Section:
    """A file of 10 000 small layers."""
    path = files.many()
    costs = compete({NP_LOAD: peer("load", path), QDEBUG: report(path)}, rounds)
    load = costs[NP_LOAD].seconds
    ratio = costs[QDEBUG].seconds / load
    rows = [(name, seconds(c.seconds), times(c.seconds / load)) for name, c in costs.items()]
    return Section(
        markdown(("", "s", "ratio"), rows),
        [Target("10 000 layers: times as long as `np.load`", ratio, 1.2)],
    )


def memory(files: Files, rounds: int, parts: Machine) -> Section:
    """Peak memory for different kinds of files."""
    layers = "10 000 layers"
    paths = {
        "stored, 8 layers": files.stored(),
        "compressed, 8 layers": files.stored(compressed=True),
        "one layer of 80 M elements": files.single(),
        "float64 and int32": files.typed("float64", "int32"),
        "both arrays in Fortran order": files.fortran(),
        "floats in Fortran order, codes in C order": files.mixed_order(),
        layers: files.many(),
    }
    commands = {name: report(path) for name, path in paths.items()}
    costs = compete(commands | {START: report(files.tiny())}, rounds)
    peaks = {name: (costs[name].peak - parts.interpreter) / MB for name in paths}
    rows = [
        (name, f"{paths[name].stat().st_size / MB:.0f}", f"{peak:.0f}")
        for name, peak in peaks.items()
    ]
    worst = max(peaks, key=lambda name: peaks[name])
    return Section(
        markdown(("", "file, MB", "memory, MB"), rows),
        [Target(f"most memory above the interpreter ({worst})", peaks[worst], 96, "MB")],
        facts={
            "kb_per_layer": (costs[layers].peak - costs[START].peak) / files.elements(10_000) / 1e3
        },
    )


def start_up(files: Files, rounds: int) -> Section:
    """Commands with hardly any work."""
    click, libraries = "`import click`", "`import numpy, click, tabulate`"
    shown, small = "`qdebug --help`", "`qdebug report sample_models/digits.npz`"
    tiny = f"{QDEBUG} of 64 elements"
    qdebug = script()
    costs = compete(
        {
            "`python -c pass`": python("pass"),
            click: python("import click"),
            shown: (qdebug, "--help"),
            libraries: python("import numpy, click, tabulate"),
            tiny: (qdebug, "report", files.tiny()),
            small: (qdebug, "report", SAMPLES / "digits.npz"),
        },
        rounds,
    )
    took = {name: cost.seconds for name, cost in costs.items()}
    beside = {shown: click, tiny: libraries, small: libraries}
    rows = [
        (name, seconds(value), times(value / took[beside[name]]) if name in beside else "")
        for name, value in took.items()
    ]
    return Section(
        markdown(("", "s", "relative to the imports above"), rows),
        [
            Target(f"{shown}: times as long as {click}", took[shown] / took[click], 1.8),
            Target(
                f"{small}: times as long as {libraries}",
                took[small] / took[libraries],
                1.5,
                why=f"a report of 64 elements takes {took[tiny] / took[libraries]:.2f} times as "
                "long as these imports; the rest is the work",
            ),
        ],
    )


def live(files: Files, rounds: int, counts: tuple[int, int]) -> Section:
    """A float and a quantized .tflite, run sample by sample."""
    if not (installed("ai_edge_quantizer") and installed("ai_edge_litert")):
        return Section("", note="ai-edge-quantizer is not installed, so this was not measured.")
    models = (SAMPLES / "digits_float.tflite", SAMPLES / "digits_int8.tflite")
    inputs = files.samples(SAMPLES / "digits_inputs.npz", max(counts))
    commands: dict[str, Callable[[int], Command]] = {
        QDEBUG: lambda n: report(*models, "--inputs", inputs, "--samples", n),
        "ai-edge-quantizer's `compare_model`, 1 thread": lambda n: peer(
            "compare-models", *models, inputs, n, 1
        ),
        "the same, 16 threads (its default)": lambda n: peer(
            "compare-models", *models, inputs, n, 16
        ),
    }
    costs = compete(
        {f"{name} {n}": make(n) for name, make in commands.items() for n in counts}, rounds
    )
    few, many = counts
    slopes = {
        name: (costs[f"{name} {many}"].seconds - costs[f"{name} {few}"].seconds) / (many - few)
        for name in commands
    }
    rows = [
        (
            name,
            f"{1000 * slope:.2f}",
            times(slope / slopes[QDEBUG]),
            seconds(costs[f"{name} {few}"].seconds),
            seconds(costs[f"{name} {many}"].seconds),
        )
        for name, slope in slopes.items()
    ]
    headers = ("", "ms per sample", "relative to qdebug", f"{few} samples, s", f"{many} samples, s")
    return Section(markdown(headers, rows))


def compiled(stored_file: Section) -> Section:
    """The statistics alone, by the compiled kernel and by NumPy."""
    if kernel.library() is None:
        return Section("", note=f"Not measured here: {kernel.description()}.")
    found = kernel.rates()
    first = next(iter(found.values()))
    elements = stored_file.facts["elements"] * 1e6
    return Section(
        markdown(kernel.HEADERS, kernel.rows(found)),
        [
            Target(
                "statistics on one core: times as fast as NumPy",
                first.kernel / first.numpy,
                6,
                at_least=True,
            )
        ],
        facts={
            "start": stored_file.facts["start"],
            "reading": stored_file.facts["reading"],
            "statistics": elements / first.kernel,
            "with_numpy": elements / first.numpy,
        },
    )


def codecs(parts: Machine) -> Section:
    """CRC-32 and inflate with zlib and its replacements."""
    headers = ("", "CRC-32, MB/s", "inflate normal numbers, MB/s", "inflate activations, MB/s")
    rows = [(name, *(f"{rate / MB:.0f}" for rate in rates)) for name, rates in parts.zlibs.items()]
    missing = [name for name in zlibs.MODULES if name not in parts.zlibs]
    note = f"Not installed, so not measured: {', '.join(missing)}." if missing else ""
    return Section(markdown(headers, rows), note=note)
