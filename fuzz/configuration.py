"""Fuzz configurations (.toml): what they say, and the limits that `check` takes from it."""

from pathlib import Path

from fuzz.target import api, fuzz
from qdebug.report.configuration import read_config
from qdebug.report.limits import check, unmatched
from tests.paths import SAMPLES

_REPORT = api.analyze(SAMPLES / "digits.npz", jobs=1)


def read(path: str) -> None:
    """As `qdebug check --config` does."""
    config = read_config(Path(path))
    check(_REPORT, {}, dict.fromkeys(config.fail_on, path), config)
    unmatched(_REPORT, config)


if __name__ == "__main__":
    fuzz(read, ".toml")
