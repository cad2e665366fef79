"""Pairing: find the float ONNX model's partner of each tensor of its quantized twin.

By structure first, then by names.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from qdebug.sources.onnx.network import Network, Operator

# Operators that quantizers drop because the operator before does their work: by its weights (batch
# normalization, an added bias) or by its output's code range (ReLU, Clip).
_ABSORBED = ("Relu", "Clip", "BatchNormalization", "Add")

# Pairs of float operators; a quantizer may replace one by the other.
_SAME_WORK = {"Gemm": "MatMul"}

_BIAS = 2


@dataclass(frozen=True)
class Partner:
    """The float model's partner of a quantized tensor.

    Attributes:
        tensor: its name in the float model.
        operator: the partner of the quantized tensor's operator, if there is one.
        absorbed: float operators without an operator in the quantized model, from the last back.
        transposed: a matrix that is stored transposed.
    """

    tensor: str
    operator: Operator | None = None
    absorbed: tuple[Operator, ...] = ()
    transposed: bool = False


def partners(quantized: Network, floating: Network) -> dict[str, Partner]:
    """Origin in the quantized network -> its partner in the float one, if there is one."""
    pairing = _Pairing(quantized, floating)
    for operator in quantized.operators:
        pairing.place(operator)
    pairing.place_outputs()
    return pairing.partners()


class _Pairing:
    """The twins found so far. The quantized operators are placed one by one, in order."""

    def __init__(self, quantized: Network, floating: Network) -> None:
        self._quantized = quantized
        self._floating = floating
        self._partner: dict[str, str] = {}
        self._transposed: set[str] = set()
        self._used: set[Operator] = set()
        ours, theirs = quantized.graph.inputs, floating.graph.inputs
        for name, by_order in zip(ours, theirs, strict=False):
            partner = name if ours.keys() == theirs.keys() else by_order
            self._pair(name, floating.origin.get(partner, partner))

    def place(self, operator: Operator) -> None:
        """Find the operator's partner, and with it the partners of its tensors."""
        named = {tensor: self._named(tensor) for tensor in operator.outputs}
        candidates = list(self._candidates(operator))
        if not candidates:
            candidates = [
                made
                for tensor in named.values()
                if tensor and (made := self._maker(tensor, operator.op)[0])
            ]
        partner = min(candidates, key=lambda c: self._unlikeness(operator, c, named), default=None)
        if partner is None:
            # Fused or rewritten: only the name can identify it, unless it is a mere number.
            for tensor, name in named.items():
                if name and not name.isdigit():
                    self._pair(tensor, name)
            return
        self._used.add(partner)
        self._take_operands(operator, partner)
        for place, tensor in enumerate(operator.outputs):
            name = named[tensor]
            if name and self._maker(name, operator.op)[0] is partner:
                self._pair(tensor, name)
            elif place < len(partner.outputs) and len(partner.inputs) <= len(operator.inputs):
                self._pair(tensor, partner.outputs[place])

    def place_outputs(self) -> None:
        """If an operator that quantizers drop comes last, the graph's output is its output."""
        ours, theirs = self._quantized.graph.outputs, self._floating.graph.outputs
        if len(ours) != len(theirs):
            return
        for our_output, their_output in zip(ours, theirs, strict=True):
            origin = self._quantized.origin.get(our_output, our_output)
            partner = self._floating.origin.get(their_output, their_output)
            if origin in self._partner and partner in self._reached(self._partner[origin]):
                self._pair(origin, partner)

    def partners(self) -> dict[str, Partner]:
        """All partners, also of constants that are paired by name only."""
        for origin, names in self._quantized.aliases.items():
            if origin not in self._partner and self._quantized.graph.is_constant(origin):
                for name in names:
                    if self._floating.graph.is_constant(name):
                        self._pair(origin, name)
        found = {}
        for origin, tensor in self._partner.items():
            made = self._quantized.producer.get(origin)
            operator, absorbed = self._maker(tensor, made.op) if made else (None, ())
            found[origin] = Partner(tensor, operator, absorbed, origin in self._transposed)
        return found

    def _pair(self, ours: str, theirs: str) -> None:
        """Pair two tensors, unless only one of them is constant."""
        if self._quantized.graph.is_constant(ours) == self._floating.graph.is_constant(theirs):
            self._partner[ours] = theirs

    def _named(self, tensor: str) -> str:
        """The float tensor with one of the tensor's own names, empty if there is none."""
        for name in self._quantized.aliases[tensor]:
            if name in self._floating.origin:
                return self._floating.origin[name]
        return ""

    def _candidates(self, operator: Operator) -> Iterator[Operator]:
        """Float operators that do the same to the same tensors, the nearest first."""
        known = [
            (place, self._partner[tensor])
            for place, tensor in enumerate(operator.inputs)
            if tensor in self._partner and not self._quantized.graph.is_constant(tensor)
        ]
        if not known:
            return
        (first_place, first), *others = known
        for tensor in self._reached(first):
            for candidate, place in self._floating.consumers.get(tensor, ()):
                if (
                    place == first_place
                    and candidate not in self._used
                    and _work(candidate.op) == _work(operator.op)
                    and all(
                        p < len(candidate.inputs) and candidate.inputs[p] in self._reached(other)
                        for p, other in others
                    )
                ):
                    yield candidate

    def _reached(self, tensor: str) -> Iterator[str]:
        """The tensor, and the tensors that dropped operators compute from it."""
        queue, seen = deque([tensor]), {tensor}
        while queue:
            yield (current := queue.popleft())
            for operator, _ in self._floating.consumers.get(current, ()):
                if operator.outputs and self._can_vanish(operator):
                    output = operator.outputs[0]
                    if output not in seen:
                        seen.add(output)
                        queue.append(output)

    def _can_vanish(self, operator: Operator) -> bool:
        if operator.op == "Add":
            return any(map(self._floating.graph.is_constant, operator.inputs))
        return operator.op in _ABSORBED

    def _maker(self, tensor: str, op: str) -> tuple[Operator | None, tuple[Operator, ...]]:
        """The float operator of this kind upstream of a tensor, and the dropped ones between."""
        dropped: list[Operator] = []
        made = self._floating.producer.get(tensor)
        while made and _work(made.op) != _work(op) and self._can_vanish(made):
            dropped.append(made)
            if len(dropped) > len(self._floating.operators):
                break  # a cycle: no runtime accepts such a model
            behind = [t for t in made.inputs if not self._floating.graph.is_constant(t)]
            made = self._floating.producer.get(behind[0]) if behind else None
        return (made if made and _work(made.op) == _work(op) else None), tuple(dropped)

    def _unlikeness(
        self, operator: Operator, candidate: Operator, named: Mapping[str, str]
    ) -> tuple[bool, bool]:
        """A key that tells candidates apart: the names of their outputs and their own."""
        same_output = any(
            name and self._maker(name, operator.op)[0] is candidate for name in named.values()
        )
        name, theirs = operator.node.name, candidate.node.name
        return not same_output, not (theirs and name.startswith(theirs))

    def _take_operands(self, operator: Operator, partner: Operator) -> None:
        """Pair the operator's operands with those of its partner."""
        for place, tensor in enumerate(operator.inputs):
            theirs = self._operand(operator, partner, place)
            if not theirs:
                continue
            self._pair(tensor, theirs)
            if place == 1 and _is_transposed(operator) != _is_transposed(partner):
                self._transposed.add(tensor)

    def _operand(self, operator: Operator, partner: Operator, place: int) -> str:
        """The partner's operand at this place; a bias may be added after the partner."""
        if place < len(partner.inputs):
            return partner.inputs[place]
        if place == _BIAS:
            for added, _ in self._floating.consumers.get(partner.outputs[0], ()):
                constants = [t for t in added.inputs if self._floating.graph.is_constant(t)]
                if added.op == "Add" and constants:
                    return constants[0]
        return ""


def _work(op: str) -> str:
    return _SAME_WORK.get(op, op)


def _is_transposed(operator: Operator) -> bool:
    return operator.op == "Gemm" and bool(operator.node.attributes.get("transB"))
