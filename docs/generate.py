"""Generate the parts of the documentation that come from the program.

These are docs/cli.md, the output of commands, and the pictures. A Markdown block that begins with
```console holds commands (after ``$ ``) and their output; this script runs the commands from the
root of the repository and replaces their output. ``make docs`` calls it; a test fails if the files
differ from its result.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from house import drawing

from qdebug.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [page for folder in (".", "docs", "sample_models") for page in (ROOT / folder).glob("*.md")]
PICTURES = {
    "clipped.png": ["plot", "*block_add*", "-m", "sample_models/digits_faulty.npz"],
    "overview.png": ["plot", "--overview", "-m", "sample_models/digits_faulty.npz"],
    "bias.png": ["plot", "*stem_bn_1/*sub1", "-m", "sample_models/digits_faulty.npz"],
    "truncation.png": ["plot", "*block_pw_bn_1/*sub1", "-m", "sample_models/digits_faulty.npz"],
    "coarse-scale.png": ["plot", "*tail_bn_1/*sub1", "-m", "sample_models/digits_faulty.npz"],
    "range-waste.png": ["plot", "*block_dw_bn_1/*sub1", "-m", "sample_models/digits_faulty.npz"],
    "carried.png": ["plot", "*tail_bn_1/*sub1", "-m", "sample_models/digits.npz"],
    "wrong-scale.png": ["plot", "wrong-scale", "-m", "{made}"],
    "constant.png": ["plot", "constant", "-m", "{made}"],
    "non-finite.png": ["plot", "non-finite", "-m", "{made}"],
}

SOUND = ROOT / "sample_models/digits.npz"

_WIDTH = 90
_CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MERMAID = re.compile(r"^```mermaid\n.*?^```$", re.MULTILINE | re.DOTALL)


def cli_page() -> str:
    """docs/cli.md: the help of every command."""
    page = ["# The command line\n", "Generated from the commands' own help by `make docs`.\n"]
    settings = {**main.context_settings, "terminal_width": _WIDTH}
    with click.Context(main, info_name="qdebug", **settings) as context:
        page.append(f"```\n{main.get_help(context)}\n```\n")
        for name in COMMANDS:
            command = main.get_command(context, name)
            assert command is not None
            with click.Context(
                command, info_name=name, parent=context, terminal_width=_WIDTH
            ) as inner:
                page.append(f"## qdebug {name}\n\n```\n{command.get_help(inner)}\n```\n")
    return "\n".join(page)


def refreshed(page: str) -> str:
    """The page with current output in its console blocks, and a current drawing."""

    def run(block: re.Match[str]) -> str:
        lines = []
        for command in re.findall(r"^\$ ((?:.*\\\n)*.*)", block[1], re.MULTILINE):
            lines.append(f"$ {command}\n{output_of(command)}")
        return f"```console\n{''.join(lines)}```"

    page = _MERMAID.sub(lambda _: f"```mermaid\n{drawing()}\n```", page)
    return _CONSOLE.sub(run, page)


def output_of(command: str) -> str:
    """What a shell command prints; this Python's own scripts come first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()) + "\n" * bool(done.stdout)


def write_all() -> None:
    """Update every page and picture."""
    (ROOT / "docs/cli.md").write_text(cli_page())
    for page in PAGES:
        page.write_text(refreshed(page.read_text()))
    with TemporaryDirectory() as folder:
        made = Path(folder) / "made.npz"
        make_faults(made)
        for name, arguments in PICTURES.items():
            command = [argument.format(made=made) for argument in arguments]
            main([*command, "-o", str(ROOT / "docs/images" / name)], standalone_mode=False)


def make_faults(path: Path) -> None:
    """Write a pair file with faults that the sample models lack, made from one of their layers."""
    name = next(n for n in np.load(SOUND).files if "logits_1/MatMul;" in n).rpartition("/")[0]
    with np.load(SOUND) as pairs:
        sound = {f: pairs[f"{name}/{f}"] for f in ("float", "quantized", "scale", "zero_point")}
    scale, broken = sound["scale"], sound["float"].copy()
    broken[3, 4] = np.nan
    ones = np.full_like(sound["float"], 1.0)
    codes = np.full(ones.shape, np.rint(1 / scale) + sound["zero_point"], np.int8)
    layers = {
        "wrong-scale": sound | {"scale": np.float32(1.1) * scale},
        "constant": sound | {"float": ones, "quantized": codes},
        "non-finite": sound | {"float": broken},
    }
    arrays = {f"{n}/{f}": value for n, layer in layers.items() for f, value in layer.items()}
    np.savez(path, allow_pickle=False, **arrays)


if __name__ == "__main__":
    os.chdir(ROOT)
    (ROOT / "docs/images").mkdir(exist_ok=True)
    write_all()
