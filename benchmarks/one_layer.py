"""Other commands on one large layer, and a layer of very many channels, beside their report.

python benchmarks/one_layer.py           # prints the table and the targets
python benchmarks/one_layer.py --quick   # small files, once, to try it
"""

import sys
from pathlib import Path

from commands import HERE, PYTHON, Command, compete, python, report
from pairs import Files
from tables import MB, START, Section, Target, markdown, seconds, times

LAYER = "layer"


def of_qdebug(*arguments: object) -> Command:
    """Another command of qdebug, with only the core dependencies."""
    return (PYTHON, HERE / "plain.py", "qdebug", *arguments)


def one_layer(files: Files, rounds: int, interpreter: int) -> Section:
    """What `explain` and `plot` add to `report`; the search for a range; many channels."""
    path, weights = files.single(), files.weights()
    channels = files.channels()
    made = path.parent / "made"
    made.mkdir(exist_ok=True)
    whole, told, drawn = (f"`qdebug {name}`" for name in ("report", "explain", "plot"))
    minmax, mse = (f"`qdebug quantize --range-from {how}`" for how in ("minmax", "mse"))
    small = "`qdebug plot` of 64 elements"
    many = "`qdebug report` of 200 000 channels"

    def quantize(how: str) -> Command:
        return of_qdebug("quantize", weights, "-o", made / "pairs.npz", "--range-from", how)

    costs = compete(
        {
            START: report(files.tiny()),
            whole: of_qdebug("report", path),
            told: of_qdebug("explain", LAYER, "-m", path),
            drawn: of_qdebug("plot", LAYER, "-m", path, "-o", made / "layer.png"),
            small: of_qdebug("plot", LAYER, "-m", files.tiny(), "-o", made / "small.png"),
            minmax: quantize("minmax"),
            mse: quantize("mse"),
            many: of_qdebug("report", channels),
        },
        rounds,
    )
    base = {told: whole, drawn: whole, mse: minmax}
    rows = [
        (
            name,
            seconds(cost.seconds),
            times(cost.seconds / costs[base[name]].seconds) if name in base else "",
            f"{max(cost.peak - interpreter, 0) / MB:.0f}",
        )
        for name, cost in costs.items()
    ]
    drawing = costs[small].seconds
    why = f"{small}, nearly all of it matplotlib, takes {drawing:.2f} s"
    targets = [
        *(
            Target(
                f"{name} of a layer: times as long as its {whole}",
                costs[name].seconds / costs[whole].seconds,
                3,
                why=f"{why}, {drawing / costs[whole].seconds:.2f} times as long" * (name == drawn),
            )
            for name in (told, drawn)
        ),
        Target(f"{mse} of 16 M elements", costs[mse].seconds, 2, "s"),
        Target(many, costs[many].seconds, 0.5, "s"),
        Target(f"{many}: memory", (costs[many].peak - interpreter) / MB, 60, "MB"),
    ]
    headers = ("", "whole command, s", "relative to the report or minmax", "memory, MB")
    return Section(markdown(headers, rows), targets)


def main() -> None:
    """Measure and print."""
    quick = "--quick" in sys.argv
    folder = Path(__file__).resolve().parent.parent / "build/bench" / ("quick" if quick else "full")
    files = Files(folder, 1 / 16 if quick else 1.0)
    bare = compete({"bare": python("pass")}, 3)["bare"].peak
    found = one_layer(files, 1 if quick else 5, bare)
    print(found.table)
    for target in found.targets:
        print(f"{target.what}: {target.found:.3g}, target {target.limit:g} {target.unit}")


if __name__ == "__main__":
    main()
