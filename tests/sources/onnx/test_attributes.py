"""Attributes of ONNX operators against their schemas: what models in the wild do is let through."""

import pytest

from qdebug.errors import QdebugError

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from qdebug.sources.onnx.attributes import check_attributes  # noqa: E402


def model(to, *, imported="", used="", version=21):
    """A Cast, whose `to` was text in its first version and is a whole number since the sixth."""
    cast = helper.make_node("Cast", ["x"], ["y"], "cast", domain=used, to=to)
    graph = helper.make_graph([cast], "g", [], [])
    opsets = [helper.make_opsetid(imported, version)]
    return helper.make_model(graph, opset_imports=opsets)


@pytest.mark.parametrize("imported", ["", "ai.onnx"])
@pytest.mark.parametrize("used", ["", "ai.onnx"])
def test_the_default_domain_has_two_names(imported, used):
    check_attributes(model(TensorProto.INT8, imported=imported, used=used), "m.onnx")
    with pytest.raises(QdebugError, match="attribute 'to': found type STRING, expected INT"):
        check_attributes(model("INT8", imported=imported, used=used), "m.onnx")


def test_the_schema_is_that_of_the_imported_version():
    check_attributes(model("INT8", version=1), "m.onnx")
    with pytest.raises(QdebugError, match="attribute 'to': found type INT, expected STRING"):
        check_attributes(model(TensorProto.INT8, version=1), "m.onnx")


def test_a_domain_without_a_version_has_no_schema():
    check_attributes(model("x", imported="com.example"), "m.onnx")


def test_an_attribute_of_no_type_is_refused_in_any_domain():
    made = model("x", imported="com.example", used="com.example")
    made.graph.node[0].attribute[0].type = 0
    with pytest.raises(QdebugError, match="found type UNDEFINED, expected one that the schema has"):
        check_attributes(made, "m.onnx")


def test_without_a_version_whole_numbers_are_whole():
    """As a model with a damaged list of versions has it."""
    node = helper.make_node("DequantizeLinear", ["x", "s"], ["y"], "d", axis="one")
    graph = helper.make_graph([node], "g", [], [])
    for opsets in ([], [helper.make_opsetid("", 0)], [helper.make_opsetid("", 9999)]):
        damaged = helper.make_model(graph)
        del damaged.opset_import[:]
        damaged.opset_import.extend(opsets)
        with pytest.raises(QdebugError, match="attribute 'axis': found type STRING, expected INT"):
            check_attributes(damaged, "m.onnx")
