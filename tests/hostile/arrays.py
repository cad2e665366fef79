"""Hostile pair files: headers, types and values of the arrays."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.cases import Cases
from tests.hostile.npz import bomb, members, npy, packed, shaped, zipped

ARRAYS = Cases("array", "x.npz", ["report", "{}"])

_MALFORMED = {
    "no_header": npy(" " * 118),
    "open_brace": npy("{" + " " * 117),
    "deep_brackets": npy("[" * 5000, version=2),
    "deep_minus": npy("-" * 9000 + "1", version=2),
    "no_shape": npy("{'descr': '<f4', 'fortran_order': False}"),
    "code": npy("__import__('os').system('touch escaped')"),
    "code_for_a_shape": shaped("__import__('os').system('touch escaped')"),
    "fraction_for_a_length": shaped("(1.5,)"),
    "number_for_a_shape": shaped("3", bytes(12)),
    "long_number": shaped(f"({'9' * 5000},)"),
    "structure": shaped("(1,)", bytes(4), "[('a', '<f4')]"),
    "unknown_type": shaped("(1,)", bytes(4), "'no'"),
    "old_name_of_a_type": shaped("(3,)", bytes(12), "'|a4'"),
    "not_utf_8": npy(b"{'descr': '<f4', '\xff\xfe': 1}"),
    "nul": npy("\0" * 20),
}


def _declare(name: str, member: bytes, said: str) -> None:
    def build(path: Path) -> None:
        """A .npy header that is not what NumPy writes."""
        zipped(path, members(float=member))

    build.__name__ = name
    ARRAYS.refused(f"x.npz: layer 'l': field 'float': found {said}")(build)


for _name, _member in _MALFORMED.items():
    _declare(_name, _member, "the .npy header b.*expected dtype, order and shape")
for _name, _member in {
    "elements_10_to_14": shaped("(100000000000000,)"),
    "elements_10_to_18": shaped("(1000000000000000000,)"),
    "elements_that_overflow_to_0": shaped("(4294967296, 4294967296)"),
    "negative_length": shaped("(-1,)"),
    "two_negative_lengths": shaped("(-5, -8)", bytes(160)),
    "length_beyond_64_bits": shaped("(36893488147419103232,)"),
    "65_axes": shaped(f"({'1, ' * 65})", bytes(4)),
    "too_much_data": shaped("(1,)", bytes(5)),
    "elements_of_no_bytes": shaped("(1000000000000,)", descr="'<U0'"),
    "elements_of_2_gigabytes": shaped("(1,)", descr="'<U536870911'"),
}.items():
    _declare(_name, _member, r"\d+ bytes, expected")


@ARRAYS.refused("layer 'l': field 'float': found .npy version 9, expected 1, 2 or 3")
def unknown_version(path: Path) -> None:
    """A version of the .npy format that does not exist."""
    zipped(path, members(float=npy("{}", version=9)))


class _Escape:
    def __reduce__(self) -> Any:
        return Path("escaped").touch, ()


@ARRAYS.refused("layer 'l': field 'float': found pickled objects, expected an array of numbers")
def pickled(path: Path) -> None:
    """An object array whose pickle writes a file when it is loaded."""
    zipped(path, members(float=packed(np.array([_Escape()] * 40, object))))


@ARRAYS.refused("layer 'l': field 'float': found no .npy array")
def pickle_alone(path: Path) -> None:
    """A pickle in place of an array: numpy.load would offer to run it."""
    zipped(path, members(float=pickle.dumps(_Escape()) + bytes(20)))


@ARRAYS.read()
def no_elements_of_many_columns(path: Path) -> None:
    """No element, and axes of 2^62: nothing may be allocated for them."""
    shape = "(0, 4611686018427387904, 4611686018427387904)"
    zipped(path, members(float=shaped(shape), quantized=shaped(shape, descr="'|i1'")))


@ARRAYS.refused(r"field 'scale': found \d+ bytes, expected")
def a_scale_a_channel_of_2_to_62(path: Path) -> None:
    """A scale for each of 2^62 columns of nothing."""
    shape = "(0, 4611686018427387904)"
    floats, codes = shaped(shape), shaped(shape, descr="'|i1'")
    zipped(
        path, members(float=floats, quantized=codes, scale=shaped("(4611686018427387904,)"), axis=1)
    )


@ARRAYS.refused(
    "field 'scale': found 12000000 channels, expected 1048576 at most: "
    "figures are kept for each channel"
)
def twelve_million_channels(path: Path) -> None:
    """Half a megabyte that would take gigabytes: a scale, and figures, for each element."""
    count = 12_000_000
    scale = (shaped(f"({count},)", descr="'<f4'"), 4 * count)
    bomb(
        path,
        {
            "l/float.npy": (shaped(f"({count},)"), 4 * count),
            "l/quantized.npy": (shaped(f"({count},)", descr="'|i1'"), count),
            "l/scale.npy": scale,
            "l/axis.npy": (packed(0), 0),
        },
    )


@ARRAYS.refused(
    "found 5242880 channels in 5 layers, expected 4194304 at most: figures are kept for each"
)
def five_layers_of_a_million_channels(path: Path) -> None:
    """No layer has too many, but together they would take gigabytes."""
    count = 1 << 20
    one = {
        "float": np.zeros(count, np.float16),
        "quantized": np.zeros(count, np.int8),
        "scale": np.ones(count, np.float32),
        "axis": 0,
    }
    fields = {f"{number}/{field}": array for number in range(5) for field, array in one.items()}
    np.savez_compressed(path, allow_pickle=True, **fields)


_WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "scale_of_nan": ({"scale": np.nan}, "'scale': found nan, expected finite numbers above 0"),
    "scale_of_0": ({"scale": 0.0}, "'scale': found 0.0, expected finite numbers above 0"),
    "scale_denormal": ({"scale": 5e-324}, "'scale': found 5e-324, expected 1e-140 to 1e"),
    "scale_largest": ({"scale": 1.7e308}, r"'scale': found 1.7e\+308, expected 1e-140 to 1e"),
    "scale_below_0": ({"scale": -1.0}, "'scale': found -1.0"),
    "scale_of_complex": ({"scale": np.complex64(1)}, "'scale': found complex64, expected floats"),
    "scale_of_128_bits": ({"scale": np.longdouble(1)}, "'scale': found float128"),
    "scale_of_text": ({"scale": np.array("1")}, "'scale': found <U1, expected floats"),
    "no_scale": ({"scale": np.zeros(0)}, r"'scale': found shape \(0,\)"),
    "zero_point_beyond": ({"zero_point": 2**62}, "'zero_point': found 4611686018427387904"),
    "zero_point_of_uint64": ({"zero_point": np.uint64(2**64 - 1)}, "'zero_point': found"),
    "axis_beyond": ({"axis": 2**62}, "'axis': found 4611686018427387904"),
    "axis_least": ({"axis": -(2**63)}, "'axis': found -9223372036854775808"),
    "axis_of_text": ({"axis": np.array("0")}, "'axis': found <U1 of shape"),
    "bits_0": ({"bits": 0}, "'bits': found 0"),
    "bits_beyond": ({"bits": 2**40}, "'bits': found 1099511627776"),
    "bits_of_many": ({"bits": np.zeros(9, int)}, "'bits': found int64 of shape"),
    "rounding_unknown": ({"rounding": np.array("up")}, "'rounding': found"),
    "kind_unknown": ({"kind": np.array("\x1b[2J")}, r"'kind': found '\\x1b\[2J'"),
    "op_of_bytes": ({"op": np.array(b"CONV")}, r"'op': found \|S4"),
    "op_of_no_text": (
        {"op": shaped("()", b"\xff\xff\xff\x7f", "'<U1'")},
        "'op': found no text, expected text",
    ),
    "nodes_of_numbers": ({"nodes": np.zeros(3)}, "'nodes': found float64 of shape"),
    "floats_of_integers": ({"float": np.zeros(40, int)}, "'float': found int64"),
    "codes_of_64_bits": ({"quantized": np.zeros(40, int)}, "'quantized': found int64"),
    "codes_of_another_shape": ({"quantized": np.zeros(41, np.int8)}, "'quantized': found shape"),
    "model_of_another_shape": ({"model_float": np.zeros(41)}, "'model_float': found shape"),
    "codes_beyond_bits": ({"bits": 4}, "'quantized': found codes from -99 to 99"),
}


def _declare_wrong(name: str, fields: dict[str, Any], said: str) -> None:
    def build(path: Path) -> None:
        """A value that no quantizer has."""
        zipped(path, members(**fields))

    build.__name__ = name
    ARRAYS.refused(f"x.npz: layer 'l': field {said}")(build)


for _name, (_fields, _said) in _WRONG.items():
    _declare_wrong(_name, _fields, _said)


def _extreme(name: str, x: Any, scale: Any) -> None:
    def build(path: Path) -> None:
        """Floats at the ends of their type: figures overflow, quietly."""
        floats = np.asarray(x)
        codes = np.ones(floats.shape, np.int8)
        zipped(path, members(float=floats, quantized=codes, scale=scale))

    build.__name__ = name
    ARRAYS.read()(build)


_extreme("floats_near_1e200", np.array([1e200, -1e200, 1.0]), 1e140)
_extreme("floats_at_the_largest", np.array([1.7e308, -1.7e308]), 1e140)
_extreme("floats_of_float32_at_the_largest", np.array([3.4e38, -3.4e38], np.float32), 1.0)
_extreme("floats_near_0", np.array([1e-300, 3e-320]), 1e-140)
_extreme("nan_and_infinity_alone", np.array([np.nan, np.inf, -np.inf]), 1.0)
_extreme("denormal_floats", np.array([5e-324, -5e-324]), 1.0)
_extreme("one_element", np.array([0.5]), 0.1)
