"""LiteRT models of one quantized operator, and what the reference kernels make of random codes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.arithmetic.affine import QuantParams
from qdebug.arithmetic.integer.codes import Codes

Array = NDArray[Any]


@dataclass
class Tensor:
    """A quantized tensor of a one-operator model; `data` makes it a constant."""

    shape: tuple[int, ...]
    dtype: str
    scale: Any = None
    zero_point: int = 0
    axis: int | None = None
    data: Array | None = None

    @property
    def params(self) -> QuantParams:
        scale = np.asarray(np.float32(self.scale), np.float64)
        scale = scale if scale.ndim else float(scale)
        return QuantParams.of(scale, self.zero_point, self.dtype, axis=self.axis)

    def codes(self, values: Array) -> Codes:
        return Codes(values, self.params)


def model(
    operator: str,
    options: Any,
    inputs: list[Tensor],
    output: Tensor | list[Tensor],
    *,
    version: int,
) -> bytes:
    """A .tflite file of one operator that reads `inputs` in order."""
    outputs = output if isinstance(output, list) else [output]
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    content = schema.ModelT()
    content.version, content.buffers = 3, [schema.BufferT()]
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, operator)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
    content.operatorCodes = [code]
    graph = schema.SubGraphT()
    graph.name, graph.tensors = b"main", []
    for number, tensor in enumerate([*inputs, *outputs]):
        made = schema.TensorT()
        made.name, made.shape = f"t{number}".encode(), list(tensor.shape)
        made.type, made.buffer = getattr(schema.TensorType, tensor.dtype.upper()), 0
        if tensor.data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(tensor.data).tobytes(), np.uint8)
            content.buffers.append(buffer)
            made.buffer = len(content.buffers) - 1
        if tensor.scale is not None:
            quantization = schema.QuantizationParametersT()
            quantization.scale = np.atleast_1d(np.float32(tensor.scale))
            quantization.zeroPoint = np.full(quantization.scale.shape, tensor.zero_point)
            quantization.quantizedDimension = tensor.axis or 0
            made.quantization = quantization
        graph.tensors.append(made)
    node = schema.OperatorT()
    node.opcodeIndex = 0
    node.inputs = list(range(len(inputs)))
    node.outputs = list(range(len(inputs), len(inputs) + len(outputs)))
    if options is not None:
        node.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        node.builtinOptions = options
    graph.operators = [node]
    graph.inputs = [i for i, tensor in enumerate(inputs) if tensor.data is None]
    graph.outputs = node.outputs
    content.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(content.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def computed(content: bytes, values: list[Array]) -> Array:
    """The output codes of the reference kernels; of several outputs, the first's."""
    return all_computed(content, values)[0]


def all_computed(content: bytes, values: list[Array]) -> list[Array]:
    """The codes of every output of the reference kernels."""
    from ai_edge_litert import interpreter as litert

    runner = litert.Interpreter(
        model_content=content,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF,
    )
    runner.allocate_tensors()
    for detail, value in zip(runner.get_input_details(), values, strict=True):
        runner.set_tensor(detail["index"], value)
    runner.invoke()
    return [runner.get_tensor(detail["index"]) for detail in runner.get_output_details()]
