"""Running a TFLite model: one interpreter, built once. Knows neither layers nor pairs."""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from qdebug import whereabouts
from qdebug.errors import MissingExtraError, QdebugError
from qdebug.names import printable

# default: what an application gets (XNNPACK where possible); builtin: the optimized kernels without
# delegates; reference: the plain kernels.
Kernels = Literal["default", "builtin", "reference"]
KERNELS: tuple[Kernels, ...] = get_args(Kernels)

_RESOLVERS = {
    "default": "AUTO",
    "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}


class Runner:
    """An interpreter for one flatbuffer; every tensor's value can be read after a run."""

    def __init__(
        self, path: str, flatbuffer: bytes, kernels: Kernels = "default", *, keep: bool = True
    ) -> None:
        """Build the interpreter; messages name `path`.

        Without `keep`, only inputs and outputs can be read after a run: their memory is not shared.

        Raises:
            QdebugError: the runtime cannot run this model, or is not installed.
        """
        try:
            with _quiet():
                from ai_edge_litert import interpreter as litert
        except ImportError:
            raise MissingExtraError("LiteRT models need", "litert") from None
        self._path = path
        whereabouts.given(path, "LiteRT", loaded=False)
        with self._errors("cannot be loaded"), _quiet():
            self._interpreter = litert.Interpreter(
                model_content=flatbuffer,
                experimental_op_resolver_type=litert.OpResolverType[_RESOLVERS[kernels]],
                experimental_preserve_all_tensors=keep,
            )
            self._interpreter.allocate_tensors()

    def run(self, inputs: Mapping[int, NDArray[Any]], reset: bool = False) -> None:
        """Run once with these input tensors; `reset` returns variables to their initial state.

        Raises:
            QdebugError: the runtime fails.
        """
        whereabouts.given(self._path, "LiteRT", loaded=True)
        with self._errors("cannot be run"):
            if reset:
                self._interpreter.reset_all_variables()
            self.set(inputs)
            self._interpreter.invoke()

    def set(self, inputs: Mapping[int, NDArray[Any]]) -> None:
        """Give input tensors values that stay for all later runs.

        Raises:
            QdebugError: a value does not fit.
        """
        with self._errors("cannot be run"):
            for index, values in inputs.items():
                self._interpreter.set_tensor(index, values)

    def value(self, tensor: int) -> NDArray[Any] | None:
        """A copy of a tensor's value after a run; None if it has no memory.

        Before the first run, a tensor of unknown size has none.
        """
        try:
            value: NDArray[Any] = np.asarray(self._interpreter.get_tensor(tensor))
        except (ValueError, RuntimeError):
            return None
        return value

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Turn the runtime's errors into one-line QdebugErrors, and hide its warnings."""
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
    """Hide what the runtime's C++ code writes to stderr: notes on its delegates.

    The runtime writes to the file descriptor directly, and this cannot be switched off. It also
    raises its errors, so none of them is lost.
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
