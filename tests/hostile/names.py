"""Hostile names of layers: sound data under a name that wants to be something else."""

from pathlib import Path

from tests.hostile.cases import Cases
from tests.hostile.npz import members, zipped

NAMES = Cases("name", "x.npz", ["report", "{}"])

HOSTILE_NAMES = {
    "nothing": "",
    "slashes": "///",
    "upward": "../../../escaped",
    "absolute": "/tmp/escaped",
    "windows": "..\\..\\escaped",
    "newline": "a\nError: all is lost",
    "carriage_return": "a\rok",
    "terminal": "\x1b[2J\x1b]0;title\x07",
    "c1_controls": "\x9b2J",
    "formula": "=cmd|' /C calc'!A0",
    "formula_at": "@SUM(1+1)",
    "formula_in_full_width": "\uff1d1+1",
    "formula_in_the_middle": "a'=1+1",
    "formula_after_a_space": " =1+1",
    "script": "<script>alert(1)</script>",
    "attribute": '"><img src=x onerror=alert(1)>',
    "markdown": "|[x](javascript:alert(1))|`",
    "json": '","name":"other',
    "template": "{{7*7}}{}{0.__class__}%s%n",
    "right_to_left": "a\u202egnp.exe",
    "zero_width": "a\u200bb\ufeff",
    "astral": "\U0001f600" * 40,
    "combining": "a" + "\u0301" * 500,
    "ten_thousand_characters": "x" * 10_000,
    "option": "--help",
    "glob": "[!a]*?",
    "github_command": "::error::x%0A::set-output name=a::b",
    "workflow_newline": "a\n::stop-commands::x",
}


def _declare(name: str, layer: str) -> None:
    def build(path: Path) -> None:
        """A name is data: not a path, an escape, a formula or markup."""
        zipped(path, members(layer))

    build.__name__ = name
    NAMES.read()(build)


for _name, _layer in HOSTILE_NAMES.items():
    _declare(_name, _layer)
