"""The oldest versions that pyproject.toml allows, as constraints for pip: run this file."""

import tomllib
from pathlib import Path


def constraints() -> list[str]:
    """Each dependency of qdebug and of its extras, in the oldest version."""
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    some = [extras[name] for name in extras if name not in ("all", "dev")]
    return [each.replace(">=", "==") for each in sum(some, project["dependencies"])]


if __name__ == "__main__":
    print("\n".join(constraints()))
