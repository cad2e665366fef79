"""``suggest`` against quantizing one operator of a small network at a time."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from qdebug.report.report import LayerReport
from tests.advise.networks import in_a_row, layer, shares

Array = NDArray[np.float64]


class Network:
    """Dense layers with branches in plain NumPy, each operator in float or quantized."""

    def __init__(self, join: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.ops: list[tuple[str, str, list[str], Array | None]] = [("x", "", [], None)]
        self.widths = {"x": 24}
        last = self.dense("stem", "x", 24)
        for block in range(4):
            inner = self.dense(f"a{block}", last, 24)
            size = 10 ** self.rng.uniform(-1, 0.3)
            inner = self.dense(f"b{block}", inner, 24, size)
            if join == "MUL":
                self.ops.append((f"g{block}", "LOGISTIC", [inner], None))
                inner = f"g{block}"
            self.ops.append((f"j{block}", join, [last, inner], None))
            last = f"j{block}"
            self.widths[last] = 24
            if join == "CONCATENATION":
                self.widths[last] = 48
                last = self.dense(f"c{block}", last, 24)
        self.dense("y", last, 8)
        self.inputs = self.rng.normal(size=(300, 24)) * np.exp(self.rng.normal(size=24))

    def dense(self, name: str, of: str, width: int, size: float = 1.0) -> str:
        weights = self.rng.normal(size=(self.widths[of], width)) * size
        weights *= np.sqrt(2 / self.widths[of])
        self.ops.append((name, "FULLY_CONNECTED", [of], weights))
        self.widths[name] = width
        return name

    def run(self, quantized: Sequence[str]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Each tensor, and what its operator in float makes of the tensors that it reads."""
        values: dict[str, Array] = {}
        local: dict[str, Array] = {}
        for name, op, inputs, weights in self.ops:
            read = [values[each] for each in inputs]
            local[name] = values[name] = self.made(op, read, weights)
            if name in quantized:
                bits = 4 + len(name + op) % 5  # some operators' weights are worse
                rounded = None if weights is None else self.rounded(weights, 2 ** (bits - 1))[0]
                values[name] = self.rounded(self.made(op, read, rounded), 127)[0]
        return values, local

    def made(self, op: str, read: Sequence[Array], weights: Array | None) -> Array:
        match op:
            case "FULLY_CONNECTED":
                assert weights is not None
                return np.maximum(read[0] @ weights, 0)
            case "ADD":
                return read[0] + read[1]
            case "MUL":
                return read[0] * read[1]
            case "CONCATENATION":
                return np.concatenate(read, axis=1)
            case "LOGISTIC":
                return 1 / (1 + np.exp(-read[0]))
        return self.inputs

    def rounded(self, x: Array, steps: int) -> tuple[Array, float]:
        scale = float(np.abs(x).max()) / steps
        return np.round(x / scale) * scale, scale

    def report(self) -> list[LayerReport]:
        floats, _ = self.run([])
        values, local = self.run([name for name, *_ in self.ops])
        layers = []
        for name, op, inputs, _ in self.ops:
            x, y, m = local[name], values[name], floats[name]
            own, scale = self.rounded(x, 127)

            def steps(error: Array, scale: float = scale) -> float:
                return float(np.sqrt(np.mean((error / scale) ** 2)))

            def decibels(signal: Array, error: Array) -> float:
                return float(10 * np.log10(np.sum(signal**2) / np.sum(error**2)))

            made = layer(
                name,
                *inputs,
                op=op,
                own=steps(y - x),
                inherited=steps(x - m),
                quantizer_rmse_scale=min(steps(own - x), steps(y - x) / 2),
                sqnr_db=decibels(x, y - x),
                model_rmse_scale=steps(y - m),
                model_sqnr_db=decibels(m, y - m),
                num_elements=x.size,
            )
            layers.append(replace(made, scale=scale))
        return layers

    def true_shares(self) -> dict[str, float]:
        """The error power at the output with one operator quantized and all others in float."""
        reference = self.run([])[0]["y"]
        powers = {
            name: float(np.mean((self.run([name])[0]["y"] - reference) ** 2))
            for name, *_ in self.ops
        }
        return {name: power / sum(powers.values()) for name, power in powers.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("join", "apart"), [("ADD", 0.1), ("CONCATENATION", 0.18), ("MUL", 0.12)])
def test_shares_are_those_of_quantizing_one_operator_at_a_time(join: str, apart: float) -> None:
    """`apart` is a share of the error that is put down to the wrong operator, a mean of eight."""
    graph, chain = [], []
    for seed in range(8):
        network = Network(join, seed)
        truth, layers = network.true_shares(), network.report()
        for found, into in ((shares(*layers), graph), (shares(*in_a_row(layers)), chain)):
            into.append(sum(abs(found.get(name, 0.0) - truth[name]) for name in truth) / 2)
    assert np.mean(graph) < apart
    assert np.mean(graph) < 0.6 * np.mean(chain)
