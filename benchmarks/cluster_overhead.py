"""What a task costs beside its own work: tasks that do nothing, on this machine's processes.

Prints tasks a second, bytes through the loopback interface for each task (client, scheduler and
workers, all directions, with the headers of TCP), and how much the process that holds client and
scheduler has grown at most.

    pip install -e '.[dask]'
    python benchmarks/cluster_overhead.py                   # 10 000 tasks of 500 bytes, 2 workers
    python benchmarks/cluster_overhead.py --tasks 100000 --result-bytes 4000
"""

import argparse
import platform
import time
from functools import partial

import dask.system
import distributed
import psutil

from qdebug.cluster import connect


def answer(size: int, task: bytes) -> bytes:
    """A result of so many bytes, for no work."""
    return bytes(size)


def first(one: bytes, other: bytes) -> bytes:
    """Two results merged, which takes no more room."""
    return one


def loopback_bytes() -> int:
    """What this machine has sent to itself so far."""
    counters = psutil.net_io_counters(pernic=True)
    return sum(counters[name].bytes_sent for name in ("lo", "lo0") if name in counters)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--task-bytes", type=int, default=500)
    parser.add_argument("--result-bytes", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()

    dask.system.cpu_count = lambda: options.workers
    tasks = [bytes(options.task_bytes)] * options.tasks
    function = partial(answer, options.result_bytes)
    memory = psutil.Process().memory_info
    with connect("local") as cluster:
        cluster.reduce(function, tasks[:100], first)  # everything imported, everybody connected
        bytes_before, memory_before, start = loopback_bytes(), memory().rss, time.perf_counter()
        most = memory_before

        def watch(done: int) -> None:
            nonlocal most
            if done % 1000 == 0:
                most = max(most, memory().rss)

        cluster.reduce(function, tasks, first, watch)
        seconds = time.perf_counter() - start
        moved = loopback_bytes() - bytes_before
    print(
        f"{options.tasks} tasks of {options.task_bytes} bytes, results of {options.result_bytes}, "
        f"{options.workers} workers; Python {platform.python_version()}, "
        f"distributed {distributed.__version__}\n"
        f"{options.tasks / seconds:.0f} tasks/s ({1000 * seconds / options.tasks:.2f} ms each), "
        f"{moved / options.tasks:.0f} bytes each, "
        f"{(most - memory_before) / 2**20:.0f} MB more in client and scheduler"
    )


if __name__ == "__main__":
    main()
