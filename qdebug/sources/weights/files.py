"""Open two weight files by their names: GGUF, or safetensors in a file or a folder."""

from collections.abc import Sequence

from qdebug.sources.tensors import Weights
from qdebug.sources.weights.source import WeightFiles

_GGUF = ".gguf"


def open_weights(names: Sequence[str]) -> WeightFiles:
    """The source of a float and a quantized weight file.

    Args:
        names: the float one's, and the quantized one's.

    Raises:
        QdebugError: a file cannot be read, or they have no tensor to compare.
    """
    floats, quantized = map(_opened, names)
    one, other = (name.lower().endswith(_GGUF) for name in names)
    if other and not one:
        from qdebug.sources.weights.names import as_gguf

        floats = as_gguf(floats, quantized)
    return WeightFiles(floats, quantized)


def _opened(name: str) -> Weights:
    if name.lower().endswith(_GGUF):
        from qdebug.sources.gguf.files import open_gguf

        return open_gguf(name)
    from qdebug.sources.safetensors.files import open_safetensors

    return open_safetensors([name])
