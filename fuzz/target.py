"""What all targets share: bytes become a file, a reader reads it, and may end in two ways only.

Allowed are a result and a `QdebugError`, which the command shows in one line. Any other exception,
a warning, a hang, or too much memory is a crash. A target imports this module before qdebug.
"""

import contextlib
import io
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import atheris

_ROOMS = ("qdebug.measure.", "qdebug.report.", "qdebug.run.", "qdebug.sources.")
_KERNEL = "qdebug.measure.kernel."  # reads no file

# Also libraries that read the bytes before qdebug does. Only modules that are imported here for the
# first time, and now, guide the fuzzer.
with atheris.instrument_imports(
    include=["qdebug", "csv", "flatbuffers", "json", "numpy.lib.format", "tomllib", "zipfile"],
    enable_loader_override=False,
):
    import zipfile

    import qdebug
    from qdebug import api
    from qdebug.errors import QdebugError
    from qdebug.report.json import dumps

    for module in walk_packages(qdebug.__path__, "qdebug."):
        if module.name.startswith(_ROOMS) and not module.name.startswith(_KERNEL):
            import_module(module.name)

Mutate = Callable[[bytes, int, int], bytes]

_MEMORY = Path("/dev/shm")


def fuzz(read: Callable[[str], object], suffix: str, mutate: Mutate | None = None) -> None:
    """Call the reader with files of this suffix, for as long as libFuzzer's arguments say."""
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        path = Path(folder, f"x{suffix}")

        def once(data: bytes) -> None:
            path.write_bytes(data)
            with contextlib.suppress(QdebugError):
                read(str(path))

        atheris.Setup(sys.argv, once, **({} if mutate is None else {"custom_mutator": mutate}))
        atheris.Fuzz()


def report_on(*names: str) -> None:
    """The report on a source, to its last figure and as JSON."""
    dumps(api.analyze(*names, jobs=1))


def mutate_member(data: bytes, most: int, seed: int) -> bytes:
    """Change one array of a .npz, under a right checksum; or, half of the time, any bytes."""
    members: dict[str, bytes] = {}
    if seed % 2:
        with contextlib.suppress(Exception), zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()[:32]}
    if not members:
        return bytes(atheris.Mutate(data, most))
    name = list(members)[seed // 2 % len(members)]
    members[name] = atheris.Mutate(members[name], len(members[name]) + 64)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()
