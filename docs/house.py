"""The rooms of the package and the imports between them: `python docs/house.py` draws them.

An arrow from one room to another means that a module in the first imports a module in the second:
at its top, within a function, or for types only. `make docs` puts the drawing into CONTRIBUTING.md;
a test fails if an arrow goes up.
"""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "qdebug"

# The front door and the rooms, from top to bottom. A room may import only those below it.
FLOORS = (
    ("cli",),
    ("api",),
    ("render",),
    ("advise", "sources.open"),
    ("sources.pair_file", "sources.tflite", "sources.onnx"),
    ("sources.inputs",),
    ("sources.safetensors",),
    ("sources.tensors",),
    ("sources.npz",),
    ("sources.storage",),
    ("run",),
    ("report",),
    ("measure",),
    ("arithmetic",),
    ("words",),
)
# Modules that share a room without being a package.
_SHARED = {
    **dict.fromkeys(("__main__",), "cli"),
    **dict.fromkeys(("__init__", "results", "testing"), "api"),
    **dict.fromkeys(
        ("arguments", "errors", "names", "formatting", "output", "text_file", "whereabouts"),
        "words",
    ),
}


def room_of(module: str) -> str:
    """The room of a module, given without the package's name: ``sources.tflite.graph``.

    >>> room_of("sources.tflite.graph"), room_of("measure.layer"), room_of("names")
    ('sources.tflite', 'measure', 'words')
    """
    known = {room for floor in FLOORS for room in floor}
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in known:
            return ".".join(parts[:length])
    return _SHARED.get(module, module)


def imports() -> dict[tuple[str, str], list[str]]:
    """Each arrow from room to room, with the imports behind it."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        module = name.removesuffix(".__init__")
        if module == "sources":
            continue
        for imported in _imported(ast.parse(path.read_text())):
            ends = room_of(module), room_of(imported)
            if ends[0] != ends[1]:
                arrows.setdefault(ends, []).append(f"{module} -> {imported}")
    return arrows


def _imported(tree: ast.AST) -> Iterable[str]:
    """The package's own modules that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if _is_module(name) else node.module for name in inside]
        else:
            continue
        for name in names:
            package, _, module = name.partition(".")
            if package == "qdebug" and module:
                yield module


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def upward(arrows: Mapping[tuple[str, str], list[str]]) -> dict[tuple[str, str], list[str]]:
    """The arrows that stay on a floor or go up."""
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    return {ends: modules for ends, modules in arrows.items() if floor[ends[0]] >= floor[ends[1]]}


def drawing() -> str:
    """The rooms and their arrows in Mermaid; an arrow that others imply is left out."""
    arrows = set(imports())
    below: dict[str, set[str]] = {}
    for start, end in arrows:
        below.setdefault(start, set()).add(end)

    def reached(room: str) -> set[str]:
        return {far for near in below.get(room, ()) for far in {near} | reached(near)}

    kept = [
        (start, end)
        for start, end in arrows
        if not any(end in reached(other) for other in below[start] - {end})
    ]
    order = [room for floor in FLOORS for room in floor]
    lines = ["graph TD"]
    lines += [f'    {room.replace(".", "_")}["{room.replace(".", "/")}"]' for room in order]
    for start, end in sorted(kept, key=lambda ends: tuple(map(order.index, ends))):
        lines.append(f"    {start.replace('.', '_')} --> {end.replace('.', '_')}")
    return "\n".join(lines)


if __name__ == "__main__":
    wrong = upward(imports())
    for ends, modules in wrong.items():
        print(f"goes up: {' -> '.join(ends)}: {', '.join(modules)}")
    if not wrong:
        print(drawing())
