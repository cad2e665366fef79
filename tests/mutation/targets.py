"""The modules that are mutated, and the tests that must notice."""

from dataclasses import dataclass, field
from pathlib import Path

from tests.paths import ROOT


@dataclass(frozen=True)
class Target:
    """A module of qdebug.

    Attributes:
        file: from the root of the checkout.
        tests: files and folders of tests; the module's own doctests are run, too.
        environment: variables that are set while it is tested.
    """

    file: str
    tests: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return ROOT / self.file

    @property
    def module(self) -> str:
        return self.file.removesuffix(".py").replace("/", ".")

    @property
    def source(self) -> str:
        return self.path.read_text()


_STATISTICS = (
    "tests/measure",
    "tests/report/test_golden.py",
    "tests/report/test_channels.py",
    "tests/report/test_grid_diagnosis.py",
)

TARGETS = {
    "affine": Target(
        "qdebug/arithmetic/affine.py",
        (
            "tests/arithmetic/test_affine.py",
            "tests/arithmetic/test_parameters.py",
            "tests/arithmetic/test_code_ranges.py",
            "tests/arithmetic/test_grids.py",
            "tests/measure/test_rounding.py",
            "tests/measure/test_metrics.py",
            "tests/measure/test_extreme_values.py",
        ),
    ),
    "limits": Target(
        "qdebug/report/limits.py",
        (
            "tests/report/test_limits.py",
            "tests/report/test_configuration.py",
            "tests/cli/test_check.py",
            "tests/cli/test_outputs.py",
            "tests/test_testing.py",
        ),
    ),
    "diagnosis": Target("qdebug/report/diagnosis.py", ("tests/report",)),
    "statistics": Target("qdebug/measure/statistics.py", _STATISTICS),
    "metrics": Target("qdebug/measure/metrics.py", (*_STATISTICS, "tests/report")),
    "plain": Target("qdebug/measure/kernel/plain.py", _STATISTICS, {"QDEBUG_KERNEL": "numpy"}),
}
