"""The command, where a runtime ends the process by a signal."""

import os
import subprocess
import sys
from pathlib import Path

from tests.paths import ROOT

# As `python -m qdebug`, where the n-th call of a method of a runtime ends the process by a signal.
DOOMED = """
import importlib, os, runpy, sys
number, count, module, method = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
del sys.argv[1:5]
owner, name = method.split(".")
of = getattr(importlib.import_module(module), owner)
real = getattr(of, name)
def fatal(*args, **more):
    global count
    count -= 1
    if count == 0:
        os.write(2, b"free(): invalid pointer")
        os.kill(os.getpid(), number)
    return real(*args, **more)
setattr(of, name, fatal)
runpy.run_module("qdebug", run_name="__main__", alter_sys=True)
"""
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def doomed(
    folder: Path, number: int, count: int, call: tuple[str, str], *args: object
) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", DOOMED, str(int(number)), str(count), *call]
    return subprocess.run(
        [*words, *map(str, args)],
        env=ENVIRONMENT,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
