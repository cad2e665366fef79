"""Try everything hostile, and write to docs/security.md how it ended: `python -m tests.hostile`."""

import ast
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tabulate import tabulate

from tests.hostile.everyone import READERS
from tests.hostile.trial import Ended, run
from tests.pages import rewritten
from tests.paths import ROOT

PAGE = ROOT / "docs/security.md"
_TESTS = ROOT / "tests"

# What is injected, and the tests that do it; a test counts as often as pytest runs it.
_FAULTS = {
    "a file cut at every byte": ["hostile/test_cut.py"],
    "a file that changes or shrinks while it is read": ["hostile/test_changing_files.py"],
    "a full disk": ["cli/test_full_disk.py"],
    "standard streams that are closed or full": ["cli/test_closed_streams.py"],
    "SIGINT, SIGTERM, SIGHUP": ["cli/test_signals.py"],
    "a runtime that crashes": ["cli/test_apart.py", "sources/onnx/test_crash.py"],
    "workers, schedulers and servers that fail, stop or stall": [
        "run/test_cluster_faults.py",
        "run/test_scheduler.py",
    ],
}


def files() -> str:
    """How all hostile files ended, reader by reader."""
    rows = []
    for cases in READERS:
        ends = []
        for case in cases.all:
            with tempfile.TemporaryDirectory() as folder:
                ends.append(run(case.made(Path(folder)), Path(folder)))
        rows.append((cases.reader, len(ends), *_summed(ends)))
    rows.append(("all", *(sum(row[place] for row in rows) for place in range(1, 5)), *_most(rows)))
    headers = [
        "read as",
        "files",
        "refused",
        "reported",
        "promise broken",
        "slowest",
        "most memory",
    ]
    return tabulate(rows, headers, "github", colalign=("left", *["right"] * 6))


def _summed(ends: Sequence[Ended]) -> tuple[int, int, int, str, str]:
    return (
        sum(end.status == 2 for end in ends),
        sum(end.status == 0 for end in ends),
        sum(bool(end.problem) for end in ends),
        f"{max(end.seconds for end in ends):.2f} s",
        f"{max(end.megabytes for end in ends):.0f} MB",
    )


def _most(rows: Sequence[tuple[object, ...]]) -> Iterator[str]:
    for place in (5, 6):
        yield max((str(row[place]) for row in rows), key=lambda text: float(text.split()[0]))


def faults() -> str:
    """How many tests inject a fault of each kind."""
    rows = []
    for what, names in _FAULTS.items():
        command = [sys.executable, "-m", "pytest", "--collect-only"]
        command += [str(_TESTS / name) for name in names]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        rows.append((what, sum("::" in line for line in done.stdout.splitlines())))
    return tabulate(rows, ["fault", "tests"], "github")


def properties() -> str:
    """How many tests state a property, and on how many random examples each is tried."""
    counts = [
        _examples(node)
        for path in sorted(_TESTS.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and _examples(node)
    ]
    return f"{len(counts)} properties, on {sum(counts)} random examples a run."


def _examples(test: ast.FunctionDef) -> int:
    """Of a test of a property, as its settings say; 0 for any other."""
    calls = [each for each in test.decorator_list if isinstance(each, ast.Call)]
    if not any(ast.unparse(call.func) == "given" for call in calls):
        return 0
    options = [option for call in calls for option in call.keywords]
    given = [option.value for option in options if option.arg == "max_examples"]
    return int(ast.literal_eval(given[0])) if given else 100  # hypothesis' own number


def main() -> int:
    """Write the page; the exit status."""
    table = files()
    text = PAGE.read_text()
    for name, block in (("files", table), ("faults", faults()), ("properties", properties())):
        text = rewritten(text, f"{name}: `python -m tests.hostile`", block)
        print(f"{block}\n")
    PAGE.write_text(text)
    return int(table.splitlines()[-1].split("|")[5].strip() != "0")


if __name__ == "__main__":
    sys.exit(main())
