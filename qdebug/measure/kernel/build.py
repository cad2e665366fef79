"""Build: compile kernel.c to a shared library beside it, if there is a C compiler.

    python qdebug/measure/kernel/build.py

The build backend runs this when qdebug is installed; run it again after a change of kernel.c in a
source tree. Without a compiler it says so, and qdebug uses NumPy. Imports nothing of qdebug, which
is not installed yet.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SOURCE = FOLDER / "kernel.c"
LIBRARY = FOLDER / ("kernel.dll" if os.name == "nt" else "kernel.so")

# The last two let loops with `fabs` or a comparison be vectorized; neither changes a result.
# Contraction of a * b - c would: an exact code would have an error that is not zero.
FLAGS = (
    *("-std=c11", "-O3", "-shared", "-fvisibility=hidden", "-fopenmp-simd"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
)


def compiler() -> list[str] | None:
    """The command of a C compiler: $CC, or the first one found."""
    named = os.environ.get("CC", "")
    for command in (shlex.split(named),) if named else (["cc"], ["gcc"], ["clang"]):
        if shutil.which(command[0]):
            return command
    return None


def build() -> str | None:
    """Compile the kernel in place; the reason if that is not possible.

    An older library is replaced whole or removed.
    """
    LIBRARY.unlink(missing_ok=True)
    command = compiler()
    if command is None:
        return "there is no C compiler (CC, cc, gcc or clang)"
    position = [] if os.name == "nt" else ["-fPIC"]
    machine = shlex.split(os.environ.get("ARCHFLAGS", ""))  # of a macOS build for other machines
    source = f"-DQDEBUG_SOURCE={zlib.crc32(SOURCE.read_bytes())}u"
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix=".build-") as folder:
        made = Path(folder) / LIBRARY.name
        try:
            subprocess.run(
                [*command, *FLAGS, *position, *machine, source, str(SOURCE), "-o", str(made)],
                check=True,
                capture_output=True,
                text=True,
            )
        except OSError as error:
            return f"{command[0]}: {error.strerror}"
        except subprocess.CalledProcessError as error:
            return f"{shlex.join(command)} failed:\n{error.stderr}"
        made.replace(LIBRARY)
    return None


if __name__ == "__main__":
    problem = build()
    if problem is not None:
        print(f"qdebug: no compiled kernel, NumPy takes its place: {problem}", file=sys.stderr)
