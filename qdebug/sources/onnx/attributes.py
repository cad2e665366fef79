"""The attributes of ONNX operators: of the types that their schemas say, or the model is none."""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from qdebug.errors import QdebugError
from qdebug.names import printable

if TYPE_CHECKING:
    import onnx

# onnxruntime's own operators have no schema in the onnx package, nor has a version that does not
# exist. These attributes are whole numbers, and read here.
_OWN_DOMAIN = "com.microsoft"
_WHOLE = ("axis", "block_size", "opset", "output_dtype", "transA", "transB")


def check_attributes(model: "onnx.ModelProto", shown: str) -> None:
    """Check that each attribute has the type that its operator's schema gives it.

    Raises:
        QdebugError: one has another; `shown` is the name of the file in the message.
    """
    from onnx import AttributeProto

    types = AttributeProto.AttributeType
    versions = {_domain(opset.domain): opset.version for opset in model.opset_import}
    for node in model.graph.node:
        if not node.attribute:
            continue
        domain = _domain(node.domain)
        known = _types(node.op_type, domain, versions.get(domain, 0))
        for attribute in node.attribute:
            expected = known.get(attribute.name, attribute.type)
            if attribute.ref_attr_name or attribute.type == expected != AttributeProto.UNDEFINED:
                continue
            words = types.Name(expected) if expected else "one that the schema has"
            found = printable(types.Name(attribute.type))
            raise QdebugError(
                f"{shown}: no ONNX model: operator '{printable(node.name or node.op_type)}': "
                f"attribute '{printable(attribute.name)}': found type {found}, expected {words}"
            )


def _domain(name: str) -> str:
    """A domain by one name: that of ONNX's own operators has two."""
    return "" if name == "ai.onnx" else name


@lru_cache(maxsize=1024)
def _types(op: str, domain: str, version: int) -> Mapping[str, int]:
    """Attribute -> its type in `onnx.AttributeProto`; empty for an operator without a schema."""
    from onnx import AttributeProto, defs

    whole = dict.fromkeys(_WHOLE, AttributeProto.INT)
    if domain == _OWN_DOMAIN:
        return whole
    try:
        schema = defs.get_schema(op, version, domain)
    except (defs.SchemaError, TypeError):  # or a version beyond 32 bits
        return {} if domain else whole
    return {
        name: attribute.type.value  # type: ignore[attr-defined]  # an enum of the C++ binding
        for name, attribute in schema.attributes.items()
    }
