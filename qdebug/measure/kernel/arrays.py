"""Arrays: NumPy's arrays as the compiled kernel reads them."""

from typing import Any

from numpy.typing import NDArray

# `enum type` of kernel.c, by NumPy's kind and size.
_TYPES = {
    name: place for place, name in enumerate(("f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4"))
}


def known(array: NDArray[Any]) -> bool:
    """Whether the kernel knows the array's type."""
    return array.dtype.str[1:] in _TYPES


def readable(array: NDArray[Any]) -> NDArray[Any]:
    """The array in C order, aligned and in the machine's byte order."""
    flags = array.flags
    if flags.c_contiguous and flags.aligned and array.dtype.isnative:
        return array
    return array.astype(array.dtype.newbyteorder("="), order="C")


def place(array: NDArray[Any] | None) -> tuple[int | None, int]:
    """Address and type of a readable array, for as long as it exists; None: it is not given."""
    return (None, 0) if array is None else (array.ctypes.data, _TYPES[array.dtype.str[1:]])
