"""Running a TFLite model: one interpreter, built once. Knows no layers and no pairs."""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from qdebug.errors import MissingExtraError, QdebugError
from qdebug.names import printable

# default: what an application gets (XNNPACK where it can); builtin: the optimized kernels without
# delegates; reference: the plain kernels.
Kernels = Literal["default", "builtin", "reference"]
KERNELS: tuple[Kernels, ...] = get_args(Kernels)

_RESOLVERS = {
    "default": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}


class Runner:
    """An interpreter of one flatbuffer; every tensor's value can be read after a run."""

    def __init__(self, path: str, flatbuffer: bytes, kernels: Kernels = "default") -> None:
        """Build the interpreter; `path` is for messages.

        Raises:
            QdebugError: the runtime cannot run this model, or is not installed.
        """
        try:
            with _quiet():
                from ai_edge_litert import interpreter as litert
        except ImportError:
            raise MissingExtraError("LiteRT models need", "litert") from None
        self._path = path
        with self._errors("cannot be loaded"), _quiet():
            self._interpreter = litert.Interpreter(
                model_content=flatbuffer,
                experimental_op_resolver_type=litert.OpResolverType[_RESOLVERS[kernels]],
                experimental_preserve_all_tensors=True,
            )
            self._interpreter.allocate_tensors()

    def run(self, inputs: Mapping[int, NDArray[Any]], reset: bool = False) -> None:
        """Run once with these values of the input tensors; with `reset`, from the first state.

        Raises:
            QdebugError: the runtime fails.
        """
        with self._errors("cannot be run"):
            if reset:
                self._interpreter.reset_all_variables()
            for index, values in inputs.items():
                self._interpreter.set_tensor(index, values)
            self._interpreter.invoke()

    def value(self, tensor: int) -> NDArray[Any] | None:
        """A copy of a tensor's value after a run; None where it has no memory.

        Before the first run that is the case where its size is not known.
        """
        try:
            value: NDArray[Any] = np.asarray(self._interpreter.get_tensor(tensor))
        except (ValueError, RuntimeError):
            return None
        return value

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """The runtime's errors as ours, in one line; what else it says is not for the user."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except (ValueError, RuntimeError, TypeError, MemoryError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise QdebugError(
                f"{printable(self._path)}: {what} by LiteRT: {printable(said)}"
            ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what C++ code writes to stderr from the user: notes on its delegates.

    The runtime writes to the file descriptor itself and has no switch for it. What goes wrong it
    raises as well.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 2)
        os.close(sink)
        yield
    finally:
        with suppress(OSError):
            os.dup2(kept, 2)
        os.close(kept)
