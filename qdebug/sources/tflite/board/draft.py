"""A draft of a TFLite model: copies of its objects, to which tensors and operators are added."""

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.sources.tflite.graph import Operator
from qdebug.sources.tflite.model import Model
from qdebug.sources.tflite.rewrite import Shape, opened, packed


class Draft:
    """A copy of a model's graph without its operators.

    Attributes:
        tensors: the graph's, which may be replaced.
        operators: those added so far, in the order of execution.
    """

    def __init__(self, model: Model) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.operators: list[Any] = []
        self._schema, self._model = schema, model
        self._objects, self._subgraph = opened(model)
        self._originals = list(self._subgraph.operators)
        self._codes: dict[str, int] = {}
        self.tensors: list[Any] = self._subgraph.tensors

    def packed(self, inputs: Iterable[int], outputs: Iterable[int]) -> bytes:
        """The flatbuffer, with the operators that the outputs depend on.

        Raises:
            QdebugError: it would be larger than the format allows.
        """
        self._subgraph.inputs, self._subgraph.outputs = list(inputs), list(outputs)
        self._subgraph.operators = _needed(self.operators, self._subgraph.outputs)
        return packed(self._model, self._objects, self._subgraph)

    # --- tensors: objects, and their indices once they are added ---

    def add(self, tensor: Any) -> int:
        """Add a tensor: its index."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def like(self, index: int, shape: Shape | None = None) -> Any:
        """A computed float32 tensor of the shape of another, or of this one."""
        tensor = copy.copy(self.tensors[index])
        if shape is not None:
            tensor.shape, tensor.shapeSignature = list(shape), None
        tensor.type, tensor.buffer = self._schema.TensorType.FLOAT32, 0
        tensor.quantization, tensor.isVariable = None, False
        return tensor

    def shaped(self, index: int, shape: Shape) -> Any:
        """A tensor that is like another but for its shape."""
        tensor = copy.copy(self.tensors[index])
        tensor.shape, tensor.shapeSignature = list(shape), None
        return tensor

    def codes(self, index: int, params: QuantParams) -> Any:
        """A computed tensor of codes, of the shape of another."""
        tensor = self.like(index)
        tensor.type = getattr(self._schema.TensorType, params.dtype.upper())
        tensor.quantization = self._schema.QuantizationParametersT()
        tensor.quantization.scale = params.scale.tolist()
        tensor.quantization.zeroPoint = params.zero_point.tolist()
        tensor.quantization.quantizedDimension = params.axis or 0
        return tensor

    def constant(self, index: int, values: NDArray[Any]) -> Any:
        """A constant in place of another tensor."""
        tensor = self.shaped(index, values.shape)
        tensor.type = getattr(self._schema.TensorType, values.dtype.name.upper())
        tensor.quantization = None
        tensor.buffer = self._buffer(np.frombuffer(np.ascontiguousarray(values).tobytes(), "u1"))
        return tensor

    def scalar(self, value: float) -> int:
        """Add a float32 constant."""
        tensor = self._schema.TensorT()
        tensor.shape, tensor.type = [], self._schema.TensorType.FLOAT32
        tensor.name = f"qdebug/constant{len(self.tensors)}"
        tensor.buffer = self._buffer(np.frombuffer(np.float32(value).tobytes(), np.uint8))
        return self.add(tensor)

    def dial(self) -> int:
        """Add a scalar float32 that is given."""
        tensor = self._schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = [], self._schema.TensorType.FLOAT32, 0
        tensor.name = f"qdebug/dial{len(self.tensors)}"
        return self.add(tensor)

    def flag(self) -> int:
        """Add a scalar BOOL."""
        tensor = self._schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = [], self._schema.TensorType.BOOL, 0
        tensor.name = f"qdebug/switch{len(self.tensors)}"
        return self.add(tensor)

    def _buffer(self, data: Any) -> int:
        buffer = self._schema.BufferT()
        buffer.data = data
        self._objects.buffers.append(buffer)
        return len(self._objects.buffers) - 1

    # --- operators ---

    def original(self, operator: Operator) -> Any:
        """An operator of the model; not added."""
        copied = copy.copy(self._originals[operator.index])
        copied.inputs, copied.outputs = list(operator.inputs), list(operator.outputs)
        return copied

    def append(self, op: str, inputs: list[int], output: int, clamped: bool = False) -> int:
        """Add an operator without options; an ADD may be `clamped` to -1 to 1. Gives `output`."""
        if op not in self._codes:
            number = getattr(self._schema.BuiltinOperator, op)
            code = self._schema.OperatorCodeT()
            code.builtinCode, code.version = number, 1
            code.deprecatedBuiltinCode = min(number, 127)
            self._codes[op] = self._code(code)
        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._codes[op]
        operator.inputs, operator.outputs = inputs, [output]
        if clamped:
            operator.builtinOptions = self._schema.AddOptionsT()
            kinds = self._schema.ActivationFunctionType
            operator.builtinOptions.fusedActivationFunction = kinds.RELU_N1_TO_1
            operator.builtinOptionsType = self._schema.BuiltinOptions.AddOptions
        self.operators.append(operator)
        return output

    def _code(self, code: Any) -> int:
        self._objects.operatorCodes.append(code)
        return len(self._objects.operatorCodes) - 1


class Lent:
    """Another model, whose operators and tensors are added to a draft as they are."""

    def __init__(self, model: Model, draft: Draft) -> None:
        self._objects = model._objects
        self._graph = model._objects.subgraphs[model._place]
        self._draft = draft
        self._codes: dict[int, int] = {}
        self._constants: dict[int, int] = {}

    def append(self, operator: Operator, inputs: list[int], outputs: list[int]) -> None:
        """Add an operator, with tensors of the draft."""
        copied = copy.copy(self._graph.operators[operator.index])
        code = copied.opcodeIndex
        if code not in self._codes:
            self._codes[code] = self._draft._code(self._objects.operatorCodes[code])
        copied.opcodeIndex = self._codes[code]
        copied.inputs, copied.outputs = inputs, outputs
        self._draft.operators.append(copied)

    def computed(self, index: int) -> int:
        """Add a computed tensor."""
        tensor = copy.copy(self._graph.tensors[index])
        tensor.buffer = 0
        return self._draft.add(tensor)

    def constant(self, index: int) -> int | None:
        """Add a constant, once; None if the tensor is none."""
        data = self._objects.buffers[self._graph.tensors[index].buffer].data
        if data is None or not len(data):
            return None
        if index not in self._constants:
            tensor = copy.copy(self._graph.tensors[index])
            tensor.buffer = self._draft._buffer(data)
            self._constants[index] = self._draft.add(tensor)
        return self._constants[index]


def _needed(operators: list[Any], outputs: Iterable[int]) -> list[Any]:
    """The operators that the outputs depend on, and those that only have an effect."""
    wanted, kept = set(outputs), []
    for operator in reversed(operators):
        if not len(operator.outputs) or wanted.intersection(operator.outputs):
            wanted.update(operator.inputs)
            kept.append(operator)
    return kept[::-1]
