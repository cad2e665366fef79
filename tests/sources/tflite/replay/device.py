"""A device that runs the sample model: its codes, and kernels of its own with planted faults.

The kernels are written again here, from the formula alone, one output at a time.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qdebug.sources.tflite.model import read_model
from tests.sources.tflite.models import INPUTS, INT8, Interpreter

Array = NDArray[Any]
STEM, POINTWISE, LOGITS = "digits_1/stem_relu6_1/", "digits_1/block_pw_bn_1/", "digits_1/logits_1/"
_READS = {
    STEM: "serving_default_image",
    POINTWISE: "digits_1/block_dw_relu6_1/",
    LOGITS: "digits_1/gap_1/",
}
FAULTS = {
    "shift too large": "its shift is one too large: results are halved",
    "shift too small": "its shift is one too small: results are doubled",
    "truncation": "it truncates instead of rounding",
    "input zero point": "it ignores the zero point of its input 0",
    "output zero point": "it ignores the zero point of its output",
    "accumulator": "its accumulator saturates at 16 bits",
    "bias": "it ignores its bias",
}


@cache
def _run(samples: int) -> tuple[dict[str, Array], dict[str, Any], dict[str, Array]]:
    """Computed codes of all samples, the operators, and tensors' details and constants, by name."""
    from ai_edge_litert.interpreter import OpResolverType

    runner = Interpreter(
        str(INT8),
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    runner.allocate_tensors()
    given = runner.get_input_details()[0]
    scale, zero_point = given["quantization"]
    with np.load(INPUTS) as file:
        images = file[file.files[0]][:samples]
    details = {detail["index"]: detail for detail in runner.get_tensor_details()}
    made = {given["index"]} | {i for op in runner._get_ops_details() for i in op["outputs"]}
    found: dict[str, list[Array]] = {}
    for image in images:
        codes = np.clip(np.round(image / scale) + zero_point, -128, 127).astype(np.int8)
        runner.set_tensor(given["index"], codes.reshape(given["shape"]))
        runner.invoke()
        for index in made:
            found.setdefault(details[index]["name"], []).append(runner.get_tensor(index))
    operators = {
        details[op["outputs"][0]]["name"]: [details[index] for index in op["inputs"]]
        for op in runner._get_ops_details()
    }
    constants = {
        detail["name"]: runner.get_tensor(detail["index"])
        for reads in operators.values()
        for detail in reads[1:]
        if detail["index"] not in made
    }
    by_name = {detail["name"]: detail for detail in details.values()}
    codes_of = {name: np.concatenate(values) for name, values in found.items()}
    return codes_of, {"operators": operators, "details": by_name}, constants


def dumped(samples: int = 3) -> dict[str, Array]:
    """All computed codes, of the reference kernels, by tensor name."""
    return dict(_run(samples)[0])


def until(name: str) -> dict[str, Array]:
    """The codes that a device has computed once it has computed this tensor."""
    graph = read_model(str(INT8)).graph
    after = graph.after(
        {
            graph.producer[index].index
            for index in range(len(graph.tensors))
            if graph.tensors[index].name == name and index in graph.producer
        }
    )
    later = {graph.tensors[i].name for o in graph.operators if o.index in after for i in o.outputs}
    return {each: codes for each, codes in dumped().items() if each == name or each not in later}


def name_of(layer: str) -> str:
    """The whole name of a tensor."""
    return next(name for name in _run(3)[0] if name.startswith(layer))


def faulty(layer: str, fault: str) -> Array:
    """The layer's codes as a kernel with this fault computes them from the dumped input."""
    codes, model, constants = _run(3)
    _, weights, bias = model["operators"][name_of(layer)]
    x = codes[name_of(_READS[layer])].astype(int)
    w, b = constants[weights["name"]].astype(int), constants[bias["name"]].astype(int)
    details = model["details"]
    (s_x, z_x), (s_y, z_y) = (
        details[name_of(name)]["quantization"] for name in (_READS[layer], layer)
    )
    s_w = np.broadcast_to(weights["quantization_parameters"]["scales"].astype(float), b.shape)
    x = x - (0 if fault == "input zero point" else z_x)
    if layer == LOGITS:
        sums = x @ w.T
    else:
        reach = w.shape[1] // 2
        padded = np.pad(x, [(0, 0), (reach, reach), (reach, reach), (0, 0)])
        sums = sum(
            padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ w[:, i, j].T
            for i in range(w.shape[1])
            for j in range(w.shape[2])
        )
    sums = np.asarray(sums) + (0 if fault == "bias" else b)
    if fault == "accumulator":
        sums = np.clip(sums, -(2**15), 2**15 - 1)
    real = sums * (s_x * s_w / s_y)
    real = real * {"shift too large": 0.5, "shift too small": 2.0}.get(fault, 1.0)
    centred = np.floor(real if fault == "truncation" else real + 0.5).astype(int)
    out = centred + (0 if fault == "output zero point" else z_y)
    low, high = -128, 127
    if layer == STEM:
        low, high = max(low, z_y), min(high, z_y + round(6 / s_y))
    return np.clip(out, low, high).astype(np.int8)
