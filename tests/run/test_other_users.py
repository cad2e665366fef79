"""A local cluster is its user's alone: nobody else on the machine can talk to it."""

import os
import subprocess
import sys
import urllib.error
import urllib.request

import psutil
import pytest

from qdebug.run.cluster import connect
from tests.needs import needs_dask
from tests.paths import ROOT

pytestmark = [pytest.mark.slow, needs_dask]

# Imports first: the interpreter's folder may be closed to the other user.
INTRUDER = """
import asyncio, os, pickle, sys
from distributed.core import rpc
from distributed.security import Security

async def pid(address, security):
    options = security.get_connection_args("client")
    async with rpc(address, timeout=2, connection_args=options) as server:
        answer = await asyncio.wait_for(server.run_function(function=pickle.dumps(os.getpid)), 2)
    return answer["result"]

asyncio.run(pid(sys.argv[1], Security()))  # imports the rest
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for address in sys.argv[2:]:
    for scheme, security in ("tcp", Security()), ("tls", Security.temporary()):
        try:
            print(address, "ran in", asyncio.run(pid(f"{scheme}://{address}", security)))
        except Exception:
            print(address, "refused")
"""


def ports() -> list[int]:
    """Where this process and its children listen."""
    here = psutil.Process()
    return [
        connection.laddr.port
        for process in [here, *here.children(recursive=True)]
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be another"
)
def test_another_user_can_run_nothing(address: str) -> None:
    """The open scheduler of `address` shows that the intruder could."""
    before = set(ports())
    with connect("local", 1):
        ours = [f"127.0.0.1:{port}" for port in set(ports()) - before]
        assert len(ours) >= 4
        open_one = address.removeprefix("tcp://")
        words = [sys.executable, "-c", INTRUDER, address, open_one, *ours]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{open_one} ran in "), done.stderr
    assert lines[1] == f"{open_one} refused"
    assert lines[2:] == [f"{port} refused" for port in ours for _ in range(2)]


def test_a_local_cluster_shows_no_pages() -> None:
    before = set(ports())
    with connect("local", 1) as cluster:
        assert cluster.dashboard == ""
        for port in set(ports()) - before:
            for page in ("status", "health", "metrics", "info/main/workers.html"):
                with pytest.raises((urllib.error.HTTPError, OSError)):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5)
