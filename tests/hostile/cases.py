"""What a hostile file is: how it is made, which command reads it, and how that must end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.paths import SAMPLES

Build = Callable[[Path], object]

RIGHT = 0
REFUSED = 2


@dataclass(frozen=True)
class Hostile:
    """One hostile file and its fate.

    Attributes:
        reader: what reads it, for the counts.
        build: writes it; its docstring says why it must fail, or why it need not.
        file: its name, in a folder of its own.
        command: that reads it; ``{}`` stands for its path, ``{folder}`` for its folder.
        said: what the error message says, as a regular expression; empty for a right report.
        status: the command's exit status.
    """

    reader: str
    build: Build
    file: str
    command: tuple[str, ...]
    said: str
    status: int

    @property
    def name(self) -> str:
        return f"{self.reader}: {self.build.__name__}"

    def made(self, folder: Path) -> list[str]:
        """Write the file into a folder; the command line that reads it."""
        path = folder / self.file
        self.build(path)
        return [
            part.replace("{}", str(path)).replace("{folder}", str(folder)) for part in self.command
        ]


# A live pair of sound models, to which a hostile file is added.
FLOAT, INT8 = str(SAMPLES / "digits_float.tflite"), str(SAMPLES / "digits_int8.tflite")
SOUND = str(SAMPLES / "digits.npz")


class Cases:
    """The hostile files of one reader, in the order in which they are declared."""

    def __init__(self, reader: str, file: str, command: Sequence[str]) -> None:
        self.reader, self.file, self.command = reader, file, tuple(command)
        self.all: list[Hostile] = []

    def refused(self, said: str, *command: str, file: str = "") -> Callable[[Build], Build]:
        """Declare a builder of a file that must be refused, in these words."""
        return self._declared(said, REFUSED, command, file)

    def read(self, *command: str, file: str = "") -> Callable[[Build], Build]:
        """Declare a builder of a file that looks hostile, and has a right report."""
        return self._declared("", RIGHT, command, file)

    def _declared(
        self, said: str, status: int, command: tuple[str, ...], file: str
    ) -> Callable[[Build], Build]:
        def declare(build: Build) -> Build:
            assert build.__doc__, f"{build.__name__}: say why it must fail"
            case = Hostile(
                self.reader, build, file or self.file, command or self.command, said, status
            )
            self.all.append(case)
            return build

        return declare
