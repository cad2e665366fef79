"""Whether qdebug is right about whole models: the tables of real models in docs/selective.md.

Takes the models of `real_models.py` (which must have run before) and asks, for each:

- Do the report's figures of the outputs agree with plain arithmetic? Does `qdebug check` fail where
  an output is under 10 dB, and pass where all are over 20 dB?
- Does quantizing again, with the operators of `qdebug suggest --measure --top K` in float, give
  what the switchboard predicts? And is that as good as the best of 20 random draws of K operators
  (the one with the best prediction is quantized again), and as the K operators that gain most by
  themselves?

Gains are of the mean SQNR over the model's outputs, in dB; an output that joins boxes and scores
counts as two (`JOINED`). They are predicted on `inputs.npz`, and
measured there and on `other.npz`. Every result is kept in a JSON file for each model; run it again
to go on after an interruption.

    python benchmarks/real_models.py
    python benchmarks/model_truth.py                        # all of them, into build/model_truth
    python benchmarks/model_truth.py minilm --tops 1 5
    python benchmarks/model_truth.py --tables               # only print what there is
"""

import argparse
import ast
import json
import logging
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from real_models import FOLDER, MODELS, Outputs, load, operators, requantize, run, sqnr

RESULTS = Path("build/model_truth")
TOPS = (1, 3, 5, 10)
DRAWS = 20
RUINED, SOUND = 10.0, 20.0  # dB
PARTS = ("inputs", "other")
# Outputs that join what is judged by itself, along axis 1: boxes in pixels and scores.
JOINED = {("nudenet", "output0"): {"boxes": slice(0, 4), "scores": slice(4, None)}}


class Study:
    """One model, and what is known about it so far."""

    def __init__(self, name: str, folder: Path, results: Path) -> None:
        self.name = name
        self.folder = folder / name
        self._kept = results / f"{name}.json"
        self.facts: dict[str, Any] = {}
        if self._kept.exists():
            self.facts = json.loads(self._kept.read_text())
        self.suffix = ".onnx" if (self.folder / "float.onnx").exists() else ".tflite"
        self.float, self.int8 = (self.folder / f"{n}{self.suffix}" for n in ("float", "int8"))
        self._parts = {part: load(self.folder / f"{part}.npz") for part in PARTS}
        self._references: dict[str, Outputs] = {}
        self._board: Any = None

    def fact(self, key: str, find: Callable[[], Any]) -> Any:
        """A fact; found out and kept if it is not known yet."""
        if key not in self.facts:
            found = find()
            if "error" in found if isinstance(found, dict) else False:
                print(f"{self.name}: {key}: {found['error']}", file=sys.stderr)
                return found
            self.facts[key] = found
            partial = self._kept.with_suffix(".partial")
            partial.write_text(json.dumps(self.facts, indent=1))
            partial.rename(self._kept)
            print(f"{self.name}: {key}", file=sys.stderr)
        return self.facts[key]

    def reference(self, part: str) -> Outputs:
        """The float model's outputs."""
        if part not in self._references:
            self._references[part] = run(self.float, self._parts[part])
        return self._references[part]

    def quality(self, model: Path) -> dict[str, dict[str, float]]:
        """The SQNR of each output: over both parts, and of the graph as it is written."""
        found = {part: self.compared(part, run(model, self._parts[part])) for part in PARTS}
        if self.suffix == ".onnx":
            plain = run(model, self._parts["inputs"], optimized=False)
            found["plain"] = self.compared("inputs", plain)
        return found

    def compared(self, part: str, found: Outputs) -> dict[str, float]:
        """The SQNR of each output, or of each part of one that joins several."""
        figures = {}
        for output, values in self.reference(part).items():
            for name, rows in JOINED.get((self.name, output), {output: slice(None)}).items():
                pair = [[np.atleast_2d(x)[:, rows] for x in xs] for xs in (values, found[output])]
                figures[name] = sqnr(*pair)
        return figures

    def again(self, left: Sequence[Any]) -> dict[str, dict[str, float]]:
        """The SQNR of each output, quantized again with these operators in float."""
        with tempfile.TemporaryDirectory() as temporary:
            out = Path(temporary) / f"again{self.suffix}"
            requantize(self.folder, out, left)
            return self.quality(out)

    @property
    def board(self) -> Any:
        """The pair's switchboard."""
        if self._board is None:
            if self.suffix == ".onnx":
                from qdebug.sources.onnx.switchboard import board
            else:
                from qdebug.sources.tflite.board.switchboard import board
            self._board = board([str(self.float), str(self.int8)], str(self.folder / "inputs.npz"))
        return self._board

    def predicted(self, left: Sequence[int]) -> dict[str, float]:
        """The SQNR of each output with these operators in float, by the switchboard."""
        board = self.board
        found: Outputs = {output: [] for output in board.outputs}
        for sample in range(board.num_samples):
            for output, values in zip(board.outputs, board.run(sample, left), strict=True):
                found[output].append(values)
        return self.compared("inputs", found)

    def command(self, *arguments: object) -> tuple[int, str, str, float]:
        """Exit status, standard output, standard error and CPU seconds of a qdebug command."""
        start = [sys.executable, "-m", "qdebug"]
        files = [str(self.float), str(self.int8), "--inputs", str(self.folder / "inputs.npz")]
        verb, *rest = map(str, arguments)
        started = cpu_seconds(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [*start, verb, *files, *rest],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"COLUMNS": "200"},
        )
        seconds = cpu_seconds(resource.RUSAGE_CHILDREN) - started
        return done.returncode, done.stdout, done.stderr, seconds


def cpu_seconds(who: int = resource.RUSAGE_SELF) -> float:
    """CPU time so far; other processes do not change it."""
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def places(study: Study, left: Sequence[Any]) -> list[int]:
    """Places in the board's operators of what a list or recipe leaves in float."""
    if study.suffix == ".onnx":
        wanted = set(left)
        return [i for i, o in enumerate(study.board.operators) if wanted & set(o.nodes)]
    patterns = [
        re.compile(entry["regex"] if isinstance(entry, dict) else f"^{re.escape(entry)};$")
        for entry in left
        if isinstance(entry, str)
        or (entry["algorithm_key"] == "no_quantize" and entry["operation"] == "*")
    ]
    return [
        i
        for i, operator in enumerate(study.board.operators)
        if any(pattern.search(f"{node};") for pattern in patterns for node in operator.nodes)
    ]


def suggested(study: Study, top: int, *options: str) -> dict[str, Any]:
    """What `qdebug suggest` leaves in float, as the converter takes it, and what that gives."""
    form = "onnxruntime" if study.suffix == ".onnx" else "ai-edge-quantizer"
    status, text, error, seconds = study.command("suggest", "--top", top, "--for", form, *options)
    if status:
        return {"error": error.strip().splitlines()[-1:], "seconds": seconds}
    left = ast.literal_eval(text) if study.suffix == ".onnx" else json.loads(text)
    return {"left": left, "seconds": seconds, "measured": study.again(left)}


def tried(study: Study, chosen: Sequence[int]) -> dict[str, Any]:
    """What leaving these operators in float gives."""
    left = [node for place in chosen for node in study.board.operators[place].nodes]
    return {"left": left, "measured": study.again(left)}


def predicted(study: Study, left: Sequence[Any]) -> dict[str, Any]:
    """What the switchboard predicts for these operators."""
    chosen = places(study, left)
    return {
        "layers": [study.board.operators[place].layer for place in chosen],
        "quality": study.predicted(chosen),
    }


def all_predicted(study: Study, sets: Sequence[Sequence[int]]) -> list[dict[str, float]]:
    """What the switchboard predicts for each of these sets of operators."""
    return [study.predicted(chosen) for chosen in sets]


def singles(study: Study) -> dict[str, Any]:
    """The predicted quality for each operator, and what a run of the board costs."""
    board = study.board
    board.run(0)  # builds what it keeps
    board.quantized_outputs(0)
    started = cpu_seconds()
    for sample in range(board.num_samples):
        board.quantized_outputs(sample)
    plain = cpu_seconds() - started
    started = cpu_seconds()
    found = [study.predicted([place]) for place in range(len(board.operators))]
    each = (cpu_seconds() - started) / max(len(found), 1)
    return {"predicted": found, "quantized_seconds": plain, "board_seconds": each}


def mean(quality: dict[str, float]) -> float:
    """The mean SQNR over the outputs, in dB; exact ones count as 100 dB."""
    return float(np.mean([min(value, 100.0) for value in quality.values()]))


def study_model(study: Study, tops: Sequence[int]) -> None:
    """Find out everything about one model."""
    study.fact("operators", lambda: operators(study.float))
    study.fact("int8", lambda: study.quality(study.int8))

    def check() -> Any:
        status, _, error, seconds = study.command("check")
        return {"status": status, "message": error.strip().splitlines(), "seconds": seconds}

    def report() -> Any:
        status, text, error, seconds = study.command("report", "--format", "json")
        if status:
            return {"error": error.strip().splitlines()[-1:], "seconds": seconds}
        return {"outputs": json.loads(text).get("outputs"), "seconds": seconds}

    study.fact("check", check)
    study.fact("report", report)
    study.fact("all on", lambda: study.predicted([]))
    alone = study.fact("singles", lambda: singles(study))["predicted"]
    order = np.argsort([-mean(quality) for quality in alone], kind="stable")
    nameable = [i for i, operator in enumerate(study.board.operators) if operator.nodes]
    sets: dict[str, Callable[[], Any]] = {}
    for top in tops:
        best = [int(i) for i in order if i in nameable][:top]
        sets[f"unmeasured-{top}"] = partial(suggested, study, top)
        sets[f"suggest-{top}"] = partial(suggested, study, top, "--measure")
        sets[f"singles-{top}"] = partial(tried, study, best)
        draw = np.random.default_rng(top)
        size = min(top, len(nameable))
        drawn = [draw.choice(nameable, size, replace=False).tolist() for _ in range(DRAWS)]
        qualities = study.fact(f"draws-{top}", partial(all_predicted, study, drawn))
        luckiest = int(np.argmax([mean(quality) for quality in qualities]))
        sets[f"drawn-{top}"] = partial(tried, study, drawn[luckiest])
    for key, find in sets.items():
        found = study.fact(key, find)
        if "error" not in found:
            study.fact(f"predicted {key}", partial(predicted, study, found["left"]))


def gains(facts: dict[str, Any], key: str) -> dict[str, float] | None:
    """Predicted and measured gains, in dB."""
    found, predicted = facts.get(key), facts.get(f"predicted {key}")
    if not found or not predicted:
        return None
    gained = {"predicted": mean(predicted["quality"]) - mean(facts["all on"])}
    for part, quality in found["measured"].items():
        gained[part] = mean(quality) - mean(facts["int8"][part])
    return gained


def tables(studies: Sequence[Study], tops: Sequence[int]) -> None:
    """Print the tables."""
    print("| model | operators | outputs of the int8 model: inputs | others | `check` |")
    print("|---|---|---|---|---|")
    for study in studies:
        facts = study.facts
        if "check" not in facts:
            continue
        by_part = [
            ", ".join(f"{value:.1f}" for value in facts["int8"][part].values()) + " dB"
            for part in PARTS
        ]
        least = min(facts["int8"]["inputs"].values())
        failed = facts["check"]["status"] != 0
        wrong = (least < RUINED and not failed) or (least > SOUND and failed)
        verdict = ("fails" if failed else "passes") + (" (wrong)" if wrong else "")
        print(f"| {study.name} | {facts['operators']} | {by_part[0]} | {by_part[1]} | {verdict} |")
    print()
    print(
        "| model | K | predicted | same inputs | others | best of 20 draws: same inputs, others "
        "| best alone, together | without `--measure` | operators |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    off: list[float] = []  # of the graphs as they are written
    off_by_default: list[float] = []
    for study in studies:
        for top in tops:
            found = {
                way: gains(study.facts, f"{way}-{top}")
                for way in ("suggest", "drawn", "singles", "unmeasured")
            }
            known = [g for g in found.values() if g]
            off += [g["predicted"] - g.get("plain", g["inputs"]) for g in known]
            off_by_default += [g["predicted"] - g["inputs"] for g in known]
            ours = found.pop("suggest")
            if ours is None:
                continue
            cells = [study.name, str(top)]
            cells += [f"{ours[key]:+.2f} dB" for key in ("predicted", *PARTS)]
            cells += [f"{g['inputs']:+.2f}, {g['other']:+.2f}" if g else "" for g in found.values()]
            cells += [str(len(study.facts[f"predicted suggest-{top}"]["layers"]))]
            print(f"| {' | '.join(cells)} |")
    for how, errors in (
        ("with ONNX Runtime's optimizations off", off),
        ("with its default ones, which quantize some weights again", off_by_default),
    ):
        if errors:
            apart = np.abs(errors)
            print(
                f"\nPredicted and measured gains on the same inputs, {how}: {len(errors)} sets "
                f"of operators, {np.median(apart):.3f} dB apart in the median, {apart.max():.2f} "
                "dB at most."
            )
    print("\n| model | a run of int8 | of the switchboard | suggest --measure, K = 1 | 10 |")
    print("|---|---|---|---|---|")
    for study in studies:
        facts = study.facts
        if "singles" not in facts:
            continue
        costs = [facts["singles"][key] * 1000 for key in ("quantized_seconds", "board_seconds")]
        times = [facts.get(f"suggest-{top}", {}).get("seconds") for top in (1, 10)]
        cells = [f"{cost:.1f} ms" for cost in costs]
        cells += [f"{seconds:.0f} s" if seconds else "" for seconds in times]
        print(f"| {study.name} | {' | '.join(cells)} |")


def main() -> None:
    """Study the models and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="default: all that real_models.py has made")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="default: %(default)s")
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--tops", type=int, nargs="+", default=TOPS, help="default: %(default)s")
    parser.add_argument("--tables", action="store_true", help="only print what is known")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    arguments.results.mkdir(parents=True, exist_ok=True)
    names = arguments.models or [
        n for n in MODELS if (arguments.folder / n / "inputs.npz").exists()
    ]
    studies = [Study(name, arguments.folder, arguments.results) for name in names]
    if not arguments.tables:
        for study in studies:
            study_model(study, arguments.tops)
    tables(studies, arguments.tops)


if __name__ == "__main__":
    main()
