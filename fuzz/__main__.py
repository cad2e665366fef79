"""Fuzz readers, each for some seconds: `python -m fuzz [--seconds N] [TARGET ...]`.

Prints how many files each one read and how many of them crashed it; exit status 1 if any did. What
a crash was is in build/fuzz/TARGET/log, and the file in build/fuzz/TARGET/crashes. A corpus that is
there is gone on with.
"""

import argparse
import re
import subprocess
import sys

from fuzz.seeds import LARGEST, TARGETS, write_seeds
from tests.paths import ROOT

BUILD = ROOT / "build/fuzz"

# A file of at most `LARGEST` bytes; tests/hostile grants 5 s and 200 MB more than the start takes.
_LIMITS = ("-timeout=5", "-rss_limit_mb=512", f"-max_len={LARGEST}")


def fuzz(target: str, seconds: int) -> tuple[int, int]:
    """Run one target; the number of files it read, and of crashes."""
    folder = BUILD / target
    corpus, crashes = folder / "corpus", folder / "crashes"
    for made in (corpus, crashes):
        made.mkdir(parents=True, exist_ok=True)
    write_seeds(target, corpus)
    before = len(list(crashes.iterdir()))
    command = [sys.executable, "-m", f"fuzz.{target}", str(corpus), f"-artifact_prefix={crashes}/"]
    command += [*_LIMITS, f"-max_total_time={seconds}", "-print_final_stats=1"]
    with (folder / "log").open("w") as log:
        done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    found = re.search(
        r"number_of_executed_units: (\d+)", (folder / "log").read_text("utf-8", "replace")
    )
    if found is None:
        raise SystemExit(f"{target}: did not run; see {folder / 'log'}")
    crashed = len(list(crashes.iterdir())) - before
    return int(found[1]), max(crashed, int(done.returncode != 0))


def main() -> None:
    """Fuzz the targets that the command line names, or all."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Fuzz qdebug's readers.")
    parser.add_argument("--seconds", type=int, default=20, help="for each target; default: 20")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET")
    given = parser.parse_args()
    print(f"{'reader':<15} {'files':>10} {'crashes':>8}")
    failed = 0
    for target in given.targets or TARGETS:
        files, crashes = fuzz(target, given.seconds)
        failed += crashes
        print(f"{target:<15} {files:>10,} {crashes:>8}", flush=True)
    raise SystemExit(int(failed > 0))


if __name__ == "__main__":
    main()
