"""Start a command and print its wall clock, peak memory and exit status.

    python -I -S launch.py MESSAGES COMMAND...

This is a separate process because Linux counts the parent's peak memory as the child's too; this
one's peak is only that of a bare interpreter. The command's stdout goes to /dev/null, its stderr to
MESSAGES.
"""

import os
import sys
import time

messages, *command = sys.argv[1:]
redirections = [
    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    (os.POSIX_SPAWN_OPEN, 2, messages, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666),
]
start = time.perf_counter()
child = os.posix_spawnp(command[0], command, os.environ, file_actions=redirections)
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - start
# Linux counts in KiB, macOS in bytes.
peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(seconds, peak, os.waitstatus_to_exitcode(status))
