"""Whole commands, each in a fresh process: the time and the memory they take."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from plain import FAST_PACKAGES

HERE = Path(__file__).resolve().parent
PYTHON = sys.executable

Command = Sequence[object]

# An installed package comes with its byte code; a checkout must be allowed to write it.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


@dataclass(frozen=True)
class Cost:
    """The time and memory of a command.

    Attributes:
        seconds: wall clock from start to end, the least of all repetitions.
        inside: the same without the interpreter's start and imports, if the command reports it.
        peak: bytes of memory, the maximum of all repetitions.
    """

    seconds: float
    inside: float | None
    peak: int

    def best(self, other: "Cost") -> "Cost":
        """The better of two repetitions: least times, highest peak."""
        inside = [seconds for seconds in (self.inside, other.inside) if seconds is not None]
        return Cost(
            min(self.seconds, other.seconds),
            min(inside, default=None),
            max(self.peak, other.peak),
        )


def compete(contenders: Mapping[str, Command], repetitions: int) -> dict[str, Cost]:
    """The cost of each; they take turns, so that other work on the machine affects all of them."""
    costs: dict[str, Cost] = {}
    for _ in range(repetitions):
        for name, command in contenders.items():
            cost = _run(command)
            costs[name] = costs.get(name, cost).best(cost)
    return costs


def _run(command: Command) -> Cost:
    with TemporaryDirectory() as folder:
        messages = Path(folder) / "messages"
        words = [PYTHON, "-I", "-S", HERE / "launch.py", messages, *command]
        said_by_launcher = output(*words)
        said = messages.read_text()
    seconds, peak, status = said_by_launcher.split()
    if status != "0":
        raise RuntimeError(f"{' '.join(map(str, command))}: exit status {status}\n{said}")
    return Cost(float(seconds), _inside(said), int(peak))


def _inside(messages: str) -> float | None:
    """The seconds on the last line that peers.py writes."""
    label, _, seconds = (messages.splitlines() or [""])[-1].partition(" ")
    return float(seconds) if label == "inside" else None


def report(*arguments: object) -> Command:
    """`qdebug report` to JSON, with only the core dependencies."""
    return (PYTHON, HERE / "plain.py", "qdebug", "report", *arguments, "--format", "json")


def fast_report(*arguments: object) -> Command:
    """`qdebug report` to JSON, with all packages that are installed."""
    return (PYTHON, "-m", "qdebug", "report", *arguments, "--format", "json")


def peer(name: str, *arguments: object) -> Command:
    """The measurement that peers.py knows by this name."""
    return (PYTHON, HERE / "plain.py", "peers", name, *arguments)


def python(code: str) -> Command:
    """A line of Python code."""
    return (PYTHON, "-c", code)


def script() -> str:
    """The `qdebug` command that users type."""
    found = shutil.which("qdebug", path=str(Path(PYTHON).parent))
    assert found is not None, f"no qdebug beside {PYTHON}: pip install -e ."
    return found


def takes_jobs() -> bool:
    """Whether this qdebug has `report --jobs`."""
    return "--jobs" in output(PYTHON, "-m", "qdebug", "report", "--help")


def fast_packages(path: Path) -> str:
    """The packages of the extra "fast" that qdebug uses to read this file; may be empty."""
    code = (
        "import sys; from qdebug.cli import main; main(sys.argv[1:], standalone_mode=False);"
        f"print(*[name for name in {FAST_PACKAGES} if name in sys.modules])"
    )
    words = output(PYTHON, "-c", code, "report", path).splitlines()[-1].split()
    return " and ".join(words)


def output(*command: object) -> str:
    """What a command prints."""
    words = list(map(str, command))
    done = subprocess.run(words, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout
