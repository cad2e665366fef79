"""The documentation says what the program does: every snippet runs as printed."""

import importlib.util
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import Result

import qdebug as library
from qdebug.cli import COMMANDS
from qdebug.measure.metrics import FIGURES
from qdebug.report.configuration import read_config
from qdebug.sources.pair_file.read import FIELDS

Run = Callable[..., Result]

ROOT = Path(__file__).parent.parent
PUBLIC = [
    name
    for kind in (library, library.Report, library.Layer)
    for name in (library.__all__ if kind is library else vars(kind))
    if not name.startswith("_")
]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("sample_models/*.md")])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_and_option_is_documented(generate: ModuleType) -> None:
    assert (ROOT / "docs/cli.md").read_text() == generate.cli_page(), "run `make docs`"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_print_what_the_page_says(
    page: Path, generate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, run = page.read_text(), generate.output_of
    ran = []

    def output_of(command: str) -> str:
        ran.append(command)
        if command == "python tests/faults.py":  # held by tests/report/test_diagnosis.py
            return text.partition(f"$ {command}\n")[2].partition("```")[0]
        return str(run(command))

    monkeypatch.setattr(generate, "output_of", output_of)
    assert text == generate.refreshed(text), "run `make docs`"
    assert len(ran) == len(re.findall(r"^\$ ", text, re.MULTILINE))


def test_the_readmes_pair_file_and_ci_snippets_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    qdebug: Run,
) -> None:
    readme = ROOT / "README.md"
    monkeypatch.chdir(tmp_path)
    (example,) = blocks(readme, "python")
    exec(example, {})
    assert capsys.readouterr().out.startswith("conv1 0.28")
    assert "1 layer, 2,048 elements" in qdebug("report", "pairs.npz").output
    (ci,) = blocks(readme, "yaml")
    commands = re.findall(r"- run: qdebug (.*)", ci)
    assert commands
    for command in commands:
        assert qdebug(*command.split()).exit_code == 0
    (config,) = blocks(readme, "toml")
    Path("pyproject.toml").write_text(config)
    assert len(read_config(Path("pyproject.toml")).overrides) == 1


@pytest.mark.slow
def test_the_librarys_tests_and_data_frames_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = blocks(ROOT / "docs/api.md", "python")
    tests, frame = (block for block in page if ">>>" not in block)
    names: dict[str, Any] = {"report": library.analyze("sample_models/digits.npz")}
    exec(tests, names)
    if find_spec("ai_edge_litert"):
        names["test_the_int8_model_keeps_its_signal"]()
    names["test_my_kernel_rounds_and_does_nothing_else"]()
    if find_spec("pandas"):
        exec(frame, names)
        assert len(names["frame"]) == 20


def make_commands(page: str) -> list[str]:
    return re.findall(r"^    make ([\w-]+)", (ROOT / page).read_text(), re.MULTILINE)


def test_what_readers_are_told_to_make_are_targets() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert make_commands("README.md") == ["demo", "test"]
    assert set(make_commands("CONTRIBUTING.md")) == {*targets} - {"demo", "clean"}


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("metrics.md", [*FIGURES, "rmse_scale_ratio"]),
        ("pair-file.md", FIELDS),
        ("cli.md", COMMANDS),
        ("api.md", PUBLIC),
    ],
)
def test_nothing_is_left_out(page: str, words: list[str]) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert [word for word in words if not re.search(rf"\b{word}\b", text)] == []


def links(page: Path) -> list[str]:
    """Those to files."""
    found = re.findall(r"\]\(([^)#]+)", page.read_text())
    return [target for target in found if "://" not in target]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page) if not (page.parent / target).exists()] == []


def test_every_page_of_the_documentation_is_linked() -> None:
    linked = {(page.parent / target).resolve() for page in PAGES for target in links(page)}
    assert [page.name for page in ROOT.glob("docs/*.md") if page.resolve() not in linked] == []
