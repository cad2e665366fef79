"""Mutate modules and see which mutants no test notices: `python -m tests.mutation [TARGET ...]`.

Prints the survivors that survivors.toml does not explain and the score: the share of mutants that
tests notice. build/mutation/TARGET.txt has all survivors. Exit status 1 if one is not explained.
docs/mutation.md gets the scores.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TextIO

from tabulate import tabulate

from tests.mutation.mutants import Mutant
from tests.mutation.running import KILLED, TIMED_OUT, run
from tests.mutation.survivors import explained
from tests.mutation.targets import TARGETS
from tests.pages import rewritten
from tests.paths import ROOT

BUILD = ROOT / "build/mutation"
PAGE = ROOT / "docs/mutation.md"


def mutate(target: str, out: TextIO) -> int:
    """Try all mutants of a target, told to `out`; how many survivors are not explained."""
    BUILD.mkdir(parents=True, exist_ok=True)
    reasons, ends, start = explained(target), Counter[str](), time.monotonic()
    with (BUILD / f"{target}.txt").open("w") as log:

        def ended(mutant: Mutant, how: str) -> None:
            ends[how] += 1
            if how in (KILLED, TIMED_OUT):
                return
            read = str(mutant) in reasons
            ends["explained" if read else "not explained"] += 1
            line = f"{TARGETS[target].file}:{mutant.line}: {mutant} ({how})"
            print(line, reasons.get(str(mutant), ""), file=log, flush=True)
            if not read:
                print(line, file=out, flush=True)

        run(TARGETS[target], ended)
    every = sum(ends.values()) - ends["explained"] - ends["not explained"]
    noticed = ends[KILLED] + ends[TIMED_OUT]
    figures = {
        "module": TARGETS[target].file,
        "mutants": every,
        "killed": noticed,
        "score": f"{100 * noticed / every:.1f} %",
        "survivors explained": ends["explained"],
        "not explained": ends["not explained"],
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    (BUILD / f"{target}.json").write_text(json.dumps(figures))
    seconds = time.monotonic() - start
    said = f"{noticed} of {every} killed, {figures['score']}, in {seconds:.0f} s; survivors: "
    said += f"{ends['explained']} explained, {ends['not explained']} not"
    print(f"{target}: {said}", file=out, flush=True)
    return ends["not explained"]


def table() -> str:
    """The last scores of those targets that have been tried."""
    found = [BUILD / f"{target}.json" for target in TARGETS]
    rows = [json.loads(path.read_text()) for path in found if path.exists()]
    return tabulate(rows, "keys", "github")


def main() -> int:
    """Mutate the targets that the command line names, or all; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description="Mutate qdebug.")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET")
    given = parser.parse_args()
    left = 0
    for target in given.targets or TARGETS:
        print(f"{target}: {TARGETS[target].file}", flush=True)
        left += _apart(target)
    PAGE.write_text(rewritten(PAGE.read_text(), "scores: `make mutants`", table()))
    return int(left > 0)


def _apart(target: str) -> int:
    """`mutate` in a process of its own, whose tests print nothing: 1 if a survivor is left."""
    child = os.fork()
    if not child:
        status = 2
        try:
            out = os.fdopen(os.dup(1), "w")
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            status = int(mutate(target, out) > 0)
        except SystemExit as error:
            print(error, file=sys.stderr)
        finally:
            os._exit(status)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended not in (0, 1):
        raise SystemExit(f"{target}: no result")
    return ended


if __name__ == "__main__":
    sys.exit(main())
