"""Reports on pair files."""

from pathlib import Path

from qdebug.report.report import Report
from qdebug.run import session
from qdebug.run.workers import Threads
from qdebug.sources.pair_file.read import PairFiles


def read(*paths: Path, keys: dict[str, str] | None = None, jobs: int = 1) -> Report:
    return session.run(PairFiles([str(path) for path in paths], keys), workers=Threads(jobs))
