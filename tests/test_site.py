"""The site of docs/: it builds, every link within it leads somewhere, and it requests nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

pytest.importorskip("material", reason="needs mkdocs-material")
pytestmark = pytest.mark.slow


def test_the_site_builds_with_whole_links_and_without_outside_requests(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr  # strict: a broken link is an error
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]* src="([^"]*)"', page.read_text())
        loaded += re.findall(
            r'<link rel="(?:stylesheet|icon|preconnect)" href="([^"]*)"', page.read_text()
        )
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], page.name
    styles = "".join(path.read_text() for path in (tmp_path / "site").rglob("*.css"))
    assert not re.findall(r"url\(['\"]?https?:[^)]*", styles)


def test_every_page_of_the_docs_is_in_the_sites_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    named = set(re.findall(r"(\S+\.md)", menu))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")}
