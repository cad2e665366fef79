"""URLs as SOURCE: byte ranges and few requests, one line for whatever is wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from qdebug.run.session import run
from qdebug.sources.pair_file.read import PairFiles
from qdebug.sources.storage import open_file
from tests.needs import needs_fsspec, needs_http
from tests.server import Server

Write = Callable[..., Path]
Run = Callable[..., Result]
Fields = dict[str, Any]


def layer(elements: int, seed: int = 0) -> Fields:
    floats = np.random.default_rng(seed).normal(size=elements).astype(np.float32)
    scale = np.float32(8 / 255)
    codes = np.clip(np.rint(floats / scale), -128, 127).astype(np.int8)
    return {"float": floats, "quantized": codes, "scale": scale}


def figures(result: Result) -> Any:
    """The layers of a JSON report."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["layers"]


def complaint(result: Result) -> str:
    """The one line on stderr with which a command ended in status 2."""
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


# Every kind of URL gives what the file gives


@needs_fsspec
@needs_http
@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["file://{path}", "{url}/{name}", "simplecache::{url}/{name}"])
def test_a_url_gives_the_figures_of_the_file(
    form: str, packed: bool, server: Server, write_pairs: Write, qdebug: Run
) -> None:
    layers = {f"layer{k}": layer(3 * 10**k, k) for k in range(6)}
    layers["order"] = layer(10_000) | {
        "float": np.asfortranarray(layer(10_000)["float"].reshape(100, 100)),
        "quantized": layer(10_000)["quantized"].reshape(100, 100),
    }
    path = write_pairs(layers, packed=packed)
    url = form.format(path=path, url=server.url, name=path.name)
    args = ("--format", "json", "--jobs", 2)
    assert figures(qdebug("report", url, *args)) == figures(qdebug("report", path, *args))


@pytest.mark.slow
@needs_fsspec
@needs_http
@pytest.mark.parametrize("form", ["file://{folder}", "{url}", "simplecache::{url}"])
def test_a_glob_names_several(
    form: str, server: Server, write_pairs: Write, qdebug: Run, tmp_path: Path
) -> None:
    for k in range(3):
        write_pairs({"same": layer(100, k), f"own{k}": layer(10)}, f"shard-{k}.npz")
    write_pairs({"other": layer(10)}, "other.npz")
    pattern = form.format(folder=tmp_path, url=server.url) + "/shard-*.npz"
    report = json.loads(qdebug("report", pattern, "--format", "json").stdout)
    assert report["sources"] == [pattern.replace("*", str(k)) for k in range(3)]
    here = figures(qdebug("report", tmp_path / "shard-*.npz", "--format", "json"))
    assert [x["name"] for x in here] == ["same", "own0", "own1", "own2"]
    assert report["layers"] == here


@needs_fsspec
def test_files_in_memory(write_pairs: Write) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    try:
        for k in range(2):
            memory.pipe(f"/qdebug/{k}.npz", write_pairs({"a": layer(50, k)}).read_bytes())
        report = run(PairFiles(["memory://qdebug/*.npz"]))
        assert report.sources == ["memory:///qdebug/0.npz", "memory:///qdebug/1.npz"]
        assert report.layers[0].metrics is not None
        assert report.layers[0].metrics.num_elements == 100
    finally:
        memory.rm("/qdebug", recursive=True)


@needs_fsspec
@needs_http
def test_a_query_is_no_glob(server: Server, write_pairs: Write, qdebug: Run) -> None:
    """As in a signed URL; a listing would read the whole file for nothing."""
    path = write_pairs({"a": layer(300_000)})
    assert figures(qdebug("report", f"{server.url}/{path.name}?key=[x]", "--format", "json"))
    assert server.gets(path.name)
    assert None not in server.gets(path.name)


# Byte ranges


@needs_fsspec
@needs_http
def test_a_layer_is_read_without_the_file_around_it(
    server: Server, write_pairs: Write, qdebug: Run
) -> None:
    small = {f"small{k}": layer(1000, k) for k in range(20)}
    path = write_pairs({"large0": layer(2_000_000)} | small | {"large1": layer(2_000_000)})
    args = ("--format", "json", "--layer", "small7")
    found = figures(qdebug("report", f"{server.url}/{path.name}", *args))
    assert found == figures(qdebug("report", path, *args))
    spans = server.gets(path.name)
    assert None not in spans
    assert path.stat().st_size > 20_000_000
    assert sum(server.sent) < 1_000_000
    # 66 arrays: the file's start and end, their headers, the layer's two arrays.
    assert len(spans) <= 12


@pytest.mark.slow
@needs_fsspec
@needs_http
def test_large_layers_come_in_few_requests_and_once(
    server: Server, write_pairs: Write, qdebug: Run
) -> None:
    path = write_pairs({"large": layer(4_000_000)})
    args = ("--format", "json", "--jobs", 1)
    assert figures(qdebug("report", f"{server.url}/{path.name}", *args))
    spans = server.gets(path.name)
    assert None not in spans
    assert len(spans) <= 20
    assert sum(server.sent) < 1.2 * path.stat().st_size


@needs_fsspec
@needs_http
def test_a_small_file_is_one_request(server: Server, write_pairs: Write) -> None:
    """And one for its size; the directory, the headers and the parameters are at hand then."""
    path = write_pairs({f"layer{k}": layer(100, k) for k in range(20)})
    PairFiles([f"{server.url}/{path.name}"])
    assert [method for method, _, _ in server.asked] == ["HEAD", "GET"]
    assert sum(server.sent) == path.stat().st_size


@pytest.mark.slow
@needs_fsspec
@needs_http
def test_a_cache_in_front_fetches_a_file_once(
    server: Server, write_pairs: Write, qdebug: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.config import conf

    path = write_pairs({f"layer{k}": layer(300_000, k) for k in range(5)})
    monkeypatch.setitem(conf, "filecache", {"cache_storage": str(tmp_path / "cache")})
    server.ranges = False
    url = f"filecache::{server.url}/{path.name}"
    expected = figures(qdebug("report", path, "--format", "json"))
    assert figures(qdebug("report", url, "--format", "json")) == expected
    assert set(server.gets(path.name)) == {None}
    server.asked.clear()
    assert figures(qdebug("report", url, "--format", "json")) == expected
    assert not server.gets(path.name)


@needs_fsspec
@needs_http
@pytest.mark.parametrize("seed", range(5))
def test_bytes_are_the_files_wherever_one_reads(seed: int, server: Server) -> None:
    """Against the file itself, from random places on, in pieces of random sizes."""
    rng = np.random.default_rng(seed)
    data = rng.bytes(int(rng.choice([1, 5000, 66_000, 1_000_000])))
    (server.folder / "data").write_bytes(data)
    with open_file(f"{server.url}/data") as file:
        for _ in range(30):
            start = int(rng.integers(0, len(data) + 1))
            file.seek(start)
            for size in map(int, rng.choice([1, 100, 5000, 300_000], 2)):
                assert file.read(size) == data[start : start + size]
                start += size


# What can go wrong


@needs_fsspec
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://bucket/a.npz", "ValueError: Protocol not known: nosuch"),
        ("nosuch://bucket/*.npz", "ValueError: Protocol not known: nosuch"),
        ("file:///no/such/folder/a.npz", "No such file or directory"),
        ("file:///no/such/folder/*.npz", "no file matches"),
        ("memory://no-such.npz", "No such file or directory"),
        ("memory://no-such/*.npz", "no file matches"),
        ("file:///", "Is a directory"),
        ("simplecache::", None),
        ("://", None),
    ],
)
def test_a_url_without_a_file_is_one_line(url: str, message: str | None, qdebug: Run) -> None:
    found = complaint(qdebug("report", url))
    assert found.startswith(f"{url}: ")
    assert message is None or message in found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "url", "message"),
    [
        ("fsspec", "s3://bucket/a.npz", "URLs need an extra: pip install 'qdebug[dask]'"),
        ("fsspec", "s3://bucket/*.npz", "URLs need an extra: pip install 'qdebug[dask]'"),
        pytest.param("s3fs", "s3://bucket/a.npz", "Install s3fs", marks=needs_fsspec),
        pytest.param("s3fs", "s3://bucket/*.npz", "Install s3fs", marks=needs_fsspec),
        pytest.param("aiohttp", "http://127.0.0.1:9/a.npz", "aiohttp", marks=needs_fsspec),
    ],
)
def test_what_has_to_be_installed_is_named(missing: str, url: str, message: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['qdebug', 'report', {url!r}];"
        "from qdebug.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: {url}: ")
    assert message in line


@needs_fsspec
@needs_http
def test_what_a_server_refuses_is_said(server: Server, write_pairs: Write, qdebug: Run) -> None:
    url = f"{server.url}/{write_pairs({'a': layer(100)}).name}"
    assert complaint(qdebug("report", f"{server.url}/b.npz")).startswith(
        f"{server.url}/b.npz: 404, message='Not Found'"
    )
    assert "no file matches" in complaint(qdebug("report", f"{server.url}/b*.npz"))
    server.failing = lambda method, span: True
    assert complaint(qdebug("report", url)).startswith(f"{url}: 500, message='Internal Server")
    server.failing = lambda method, span: span is not None
    assert "500, message='Internal Server" in complaint(qdebug("report", url))
    server.failing = lambda method, span: False
    server.cut = lambda span: True
    assert complaint(qdebug("report", url)).startswith(f"{url}: ClientPayloadError: ")
    server.sizes = False
    assert complaint(qdebug("report", url)).startswith(f"{url}: its size is not known; expected")


@needs_fsspec
@needs_http
def test_a_server_that_fails_in_the_directory_is_named(
    server: Server, write_pairs: Write, qdebug: Run
) -> None:
    """Not for a file that is no zip: its first bytes come, its end does not."""
    url = f"{server.url}/{write_pairs({'a': layer(100_000)}).name}"
    server.failing = lambda method, span: span is not None and span[0] > 0
    found = complaint(qdebug("report", url))
    assert found.startswith(f"{url}: ")
    assert "500, message='Internal Server" in found


@needs_fsspec
@needs_http
def test_nobody_listens(qdebug: Run) -> None:
    found = complaint(qdebug("report", "http://127.0.0.1:9/a.npz"))
    assert found.startswith("http://127.0.0.1:9/a.npz: Cannot connect to host 127.0.0.1:9")


@needs_fsspec
@needs_http
def test_a_server_without_byte_ranges_is_named(
    server: Server, write_pairs: Write, qdebug: Run
) -> None:
    server.ranges = False
    url = f"{server.url}/{write_pairs({'a': layer(100_000)}).name}"
    found = complaint(qdebug("report", url))
    assert found.startswith(f"{url}: found 50")
    assert "expected the 65536 requested from offset 0; 'simplecache::'" in found
    assert figures(qdebug("report", f"simplecache::{url}", "--format", "json"))


@pytest.mark.slow
@needs_fsspec
@needs_http
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("fault", ["failing", "cut"])
def test_a_server_that_fails_in_the_middle_loses_only_what_it_did_not_give(
    fault: str, jobs: int, server: Server, write_pairs: Write, qdebug: Run
) -> None:
    """The second file's large layer, beyond what came with the directory."""
    good = write_pairs({"a": layer(400_000), "b": layer(100)}, "good.npz")
    bad = write_pairs({"a": layer(400_000, 1), "b": layer(100, 1)}, "bad.npz")
    urls = [f"{server.url}/{path.name}" for path in (good, bad)]
    floats = (500_000, 700_000)  # of bad.npz, which is asked for again

    def hit(span: tuple[int, int] | None) -> bool:
        name = server.serving.name
        return (
            name == "bad.npz" and span is not None and span[0] < floats[1] and span[1] > floats[0]
        )

    if fault == "failing":
        server.failing = lambda method, span: hit(span)
    else:
        server.cut = hit
    args = ("--format", "json", "--jobs", jobs)
    result = qdebug("report", *urls, *args)
    line = complaint(result)
    assert line.startswith(f"{urls[1]}: ")
    assert ("500, message=" if fault == "failing" else "ClientPayloadError") in line
    a, b = json.loads(result.stdout)["layers"]
    assert a["metrics"]["num_elements"] == 400_000
    assert b["metrics"]["num_elements"] == 200


@needs_fsspec
@needs_http
def test_a_file_that_changes_while_it_is_read_is_no_figure(
    server: Server, write_pairs: Write
) -> None:
    path = write_pairs({"a": layer(400_000)})
    source = PairFiles([f"{server.url}/{path.name}"])
    write_pairs({"a": layer(400_000, 1)})
    (found,) = run(source).layers
    assert found.metrics is None
    path.write_bytes(path.read_bytes()[:300_000])
    (found,) = run(source).layers
    assert found.metrics is None


@needs_http
@pytest.mark.slow
@pytest.mark.parametrize("cut", [(1, 70_000), (70_000, 1 << 30)], ids=["directory", "data"])
def test_a_server_that_falls_silent_is_named(
    cut: tuple[int, int],
    server: Server,
    write_pairs: Write,
    qdebug: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("qdebug.sources.storage._STALL", 1.0)
    write_pairs({"large": layer(100_000)})
    server.cut = lambda span: span is not None and cut[0] <= span[1] - span[0] < cut[1]
    server.patience = 3.0
    line = complaint(qdebug("report", f"{server.url}/pairs.npz"))
    assert line.startswith(f"{server.url}/pairs.npz: ")
    assert line.endswith("the server stopped answering")
