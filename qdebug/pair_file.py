"""Write pair files (docs/pair-file.md), layer by layer."""

import zipfile
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qdebug.affine import QuantParams


class PairFileWriter:
    """An .npz of float and quantized tensors, written to a binary file.

    The same layers give the same bytes. Use as a context manager: the directory is written last.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._archive = zipfile.ZipFile(file, "w")

    def __enter__(self) -> "PairFileWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._archive.close()

    def add(
        self, name: str, floats: NDArray[Any], codes: NDArray[Any], params: QuantParams
    ) -> None:
        """Write one layer; `floats` and `codes` have the same shape."""
        one = params.channels == 1
        fields: dict[str, ArrayLike] = {
            "float": floats,
            "quantized": codes,
            "scale": params.scale[0] if one else params.scale,
            "zero_point": params.zero_point[0] if one else params.zero_point,
        }
        if params.axis is not None:
            fields["axis"] = params.axis
        if params.bits != np.dtype(params.dtype).itemsize * 8:
            fields["bits"] = params.bits
        if params.narrow_range:
            fields["narrow_range"] = True
        for field, value in fields.items():
            info = zipfile.ZipInfo(f"{name}/{field}.npy")  # no date: the same bytes every time
            with self._archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(value), allow_pickle=False)
