"""Survivors that were read: why no test can, or need, notice them."""

import tomllib
from pathlib import Path

PATH = Path(__file__).parent / "survivors.toml"


def explained(target: str) -> dict[str, str]:
    """The reason for each survivor of a target, by the mutant's text."""
    groups = tomllib.loads(PATH.read_text()).get(target, [])
    return {mutant: group["reason"] for group in groups for mutant in group["mutants"]}
