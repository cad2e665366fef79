"""Hatch's hook: the compiled kernel becomes a part of the wheel, where it can be built."""

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "qdebug/measure/kernel"


class KernelHook(BuildHookInterface):  # type: ignore[misc]
    """One wheel for each platform, for any Python 3; one for all platforms without a kernel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the kernel in the source tree, for ordinary and editable installations."""
        folder = Path(self.root, FOLDER)
        subprocess.run([sys.executable, str(folder / "build.py")], check=True)
        for library in (*folder.glob("kernel.so"), *folder.glob("kernel.dll")):
            build_data["artifacts"].append(f"/{FOLDER}/{library.name}")
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
