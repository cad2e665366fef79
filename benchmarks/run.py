"""Measure everything and rewrite docs/performance.md from the template beside this file.

make bench
python benchmarks/run.py --quick    # small files, for a trial; prints the page
"""

import argparse
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as `qdebug.cli`, for work in this process

import tables
from one_layer import one_layer
from pairs import Files

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "benchmarks/performance.md"
PAGE = ROOT / "docs/performance.md"
TODAY = f"{datetime.now(UTC):%Y-%m-%d}"
PACKAGES = (
    *("qdebug", "numpy"),
    *("onnxruntime", "ai-edge-quantizer", "ai-edge-litert", "isal", "zlib-ng"),
)


def processor() -> str:
    """The CPU's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((x.partition(": ")[2] for x in lines if x.startswith("model name")), "unknown CPU")


def system() -> str:
    """The operating system's own name."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return f"{platform.system()} {platform.release()}"


def setting(names: Sequence[str]) -> str:
    """The machine and the versions, as Markdown."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = []
    for name in names:
        try:
            packages.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return (
        f"- {processor()}, {os.cpu_count()} cores, {memory:.0f} GiB of memory, {system()}\n"
        f"- Python {platform.python_version()}, {', '.join(packages)}"
    )


def verdicts(targets: Sequence[tables.Target]) -> str:
    """All targets, then the reasons for missed ones, as far as measurements show them."""
    rows = [
        (
            target.what,
            f"at {'least' if target.at_least else 'most'} {target.limit:g} {target.unit}",
            f"{target.found:.3g}",
            "met" if target.met else "**not met**",
        )
        for target in targets
    ]
    reasons = [f"- {t.what}: {t.why}." for t in targets if t.why and not t.met]
    met = sum(target.met for target in targets)
    told = [
        f"{met} of {len(targets)} targets are met.",
        tables.markdown(("", "target", "found", ""), rows),
    ]
    if reasons:
        told.append("Why targets are not met, from measured parts:\n\n" + "\n".join(reasons))
    return "\n\n".join(told)


def page(quick: bool) -> str:
    """Measure, and fill in the template."""
    rounds = 1 if quick else 5
    share = 1 / 16 if quick else 1.0
    files = Files(ROOT / "build/bench" / ("quick" if quick else "full"), share)
    parts = tables.machine(files, rounds)
    stored = tables.stored(files, rounds, parts)
    sections = {
        "stored": stored,
        "compressed": tables.compressed(files, min(rounds, 3), parts),
        "shapes": tables.shapes(files, rounds),
        "many": tables.many(files, min(rounds, 2)),
        "one_layer": one_layer(files, min(rounds, 3), parts.interpreter),
        "memory": tables.memory(files, min(rounds, 2), parts),
        "start_up": tables.start_up(files, 4 * rounds),
        "live": tables.live(files, rounds, (10, 20) if quick else (100, 600)),
        "compiled": tables.compiled(stored),
        "codecs": tables.codecs(parts),
    }
    targets = [target for section in sections.values() for target in section.targets]
    return TEMPLATE.read_text().format(
        **sections,
        date=TODAY,
        setting=setting(PACKAGES),
        verdicts=verdicts(targets),
        interpreter=parts.interpreter / tables.MB,
    )


def main() -> None:
    """Write the page, or show it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small files, once, to try the suite; prints the page, whose figures mean little",
    )
    quick = parser.parse_args().quick
    text = page(quick)
    if quick:
        print(text)
    else:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
