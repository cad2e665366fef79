"""Run a module like `python -m`, but hide the packages of the extra "fast".

python plain.py MODULE ARGUMENTS...
"""

import runpy
import sys

FAST_PACKAGES = ("isal", "zlib_ng")

if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(FAST_PACKAGES))  # type: ignore[arg-type] # None: no module
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
