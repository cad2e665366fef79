"""An ONNX model in onnxruntime; every tensor can be read. Knows no quantization."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug import whereabouts
from qdebug.errors import MissingExtraError, QdebugError
from qdebug.names import printable
from qdebug.sources.onnx.graph import Additions, Graph, one_line

Tensors = dict[str, NDArray[Any]]


class Session:
    """A model to run, with `tensors` among its outputs.

    Graph optimizations are off, because they would remove the requested tensors.

    Raises:
        QdebugError: the runtime is missing, or does not accept the model.
    """

    def __init__(
        self,
        graph: Graph,
        tensors: Iterable[str],
        narrow: Mapping[str, str] | None = None,
        additions: Additions | None = None,
    ) -> None:
        """Load the model.

        Args:
            graph: the model.
            tensors: the tensors that `run` may return.
            narrow: of those, tensors of a type that NumPy does not have -> a type that holds it.
            additions: what to run in addition.
        """
        try:
            import onnxruntime as ort
        except ImportError:
            raise MissingExtraError("ONNX models need", "onnx") from None
        import onnx

        self._path = printable(graph.path)
        model = onnx.ModelProto()
        model.CopyFrom(graph.model)
        if additions:
            model.graph.node.extend(additions.nodes)
            model.graph.initializer.extend(additions.constants)
        outputs = set(graph.outputs)
        taken = {name for node in graph.nodes for name in (*node.inputs, *node.outputs)}
        self._fetched: dict[str, str] = {}
        for tensor in tensors:
            if tensor in graph.inputs:
                continue
            self._fetched[tensor] = tensor
            if dtype := (narrow or {}).get(tensor):
                fetched = f"{tensor}/{dtype}"
                while fetched in taken:
                    fetched += "_"
                to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
                model.graph.node.append(onnx.helper.make_node("Cast", [tensor], [fetched], to=to))
                self._fetched[tensor] = fetched
            if self._fetched[tensor] not in outputs:
                model.graph.output.append(onnx.ValueInfoProto(name=self._fetched[tensor]))
        whereabouts.given(self._path, "onnxruntime", loaded=False)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4  # errors come as exceptions
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", graph.folder
        )
        try:
            self._session = ort.InferenceSession(
                model.SerializeToString(),
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=False,  # it would print
            )
        except Exception as error:  # onnxruntime has a dozen types, without a common parent
            raise QdebugError(f"{self._path}: onnxruntime: {one_line(error)}") from None

    def run(self, feeds: Mapping[str, NDArray[Any]], tensors: Iterable[str]) -> Tensors:
        """The values of these tensors, a subset of `tensors`, for one set of inputs.

        Raises:
            QdebugError: the runtime fails.
        """
        wanted = list(dict.fromkeys(tensors))
        made = [tensor for tensor in wanted if tensor not in feeds]
        values = dict(feeds)
        if made:
            names = [self._fetched[tensor] for tensor in made]
            whereabouts.given(self._path, "onnxruntime", loaded=True)
            try:
                values |= zip(made, self._session.run(names, dict(feeds)), strict=True)
            except Exception as error:
                raise QdebugError(f"{self._path}: onnxruntime: {one_line(error)}") from None
        return {tensor: values[tensor] for tensor in wanted}
