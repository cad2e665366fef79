"""Quantization schemes of every kind, for hypothesis."""

from hypothesis import strategies as st

from qdebug.arithmetic.affine import (
    QuantScheme,
)

schemes = st.builds(
    QuantScheme,
    dtype=st.sampled_from(["int8", "uint8", "int16", "uint16"]),
    bits=st.one_of(st.none(), st.integers(2, 8)),
    narrow_range=st.booleans(),
    symmetric=st.booleans(),
)
