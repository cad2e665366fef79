"""Pairing: finds, for each tensor of a quantized graph, its partner in the float graph.

It tries names first, then structure. Knows no file and no interpreter.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qdebug.arithmetic.affine import Float64Array
from qdebug.errors import FieldError
from qdebug.sources.tflite.graph import FLOATS, PASSING, VERIFY, Graph, Operator

# Operators for which the order of the inputs does not matter.
_COMMUTATIVE = ("ADD", "MUL", "MAXIMUM", "MINIMUM")

# Names that a converter invents for tensors of its own: tfl.quantize1, arith.constant.
_MADE_UP = re.compile(r"^(tfl|tf|arith|stablehlo|mhlo)\.\w+$")

# What a converter appends to a tensor's name: its type, the conversion, a number for uniqueness.
_ADDED = re.compile(r"(_(u?int(8|16)|(re|de)?quantized))+$|(?<![_:/\d])\d+$")


@dataclass(frozen=True)
class Pairing:
    """Partners in the float graph.

    Attributes:
        values: tensor of the quantized graph -> tensor of the float graph. Both are roots
            (`Graph.root`), so a value counts once, however often it is requantized.
        operators: operator index in the quantized graph -> operator of the same kind in the float
            graph.
    """

    values: dict[int, int]
    operators: dict[int, Operator]


def pair(quantized: Graph, floats: Graph) -> Pairing:
    """The partners of the quantized graph's computed tensors and of its operators.

    Tensors of the same name are partners if the name is unique in each graph and the shapes agree.
    Structure finds the rest: operators of the same kind that read or write partners are partners.
    Among several candidates, weights decide first, then names, then order.
    """
    matcher = _Matcher(quantized, floats)
    inputs, outputs = (quantized.inputs, floats.inputs), (quantized.outputs, floats.outputs)
    matcher.match_named(*inputs, quantized.input_names, floats.input_names)
    matcher.match_named(*outputs, quantized.output_names, floats.output_names)
    matcher.match_names(_own_name)
    matcher.spread()
    matcher.match_names(_plain_name, same_op=True)
    matcher.spread()
    for ends in (inputs, outputs):
        matcher.match_in_order(*ends)
        matcher.spread()
    return Pairing(matcher.values, matcher.operators)


def _own_name(name: str) -> str:
    return "" if _MADE_UP.match(name) else name


def _plain_name(name: str) -> str:
    return _ADDED.sub("", _own_name(name))


class _Matcher:
    """Two graphs, and their tensors and operators paired so far."""

    def __init__(self, quantized: Graph, floats: Graph) -> None:
        self.quantized, self.floats = quantized, floats
        self.values: dict[int, int] = {}
        self.operators: dict[int, Operator] = {}
        self._taken_values: set[int] = set()
        self._taken_operators: set[int] = set()
        self._open = [op for op in quantized.operators if op.op not in (*PASSING, VERIFY)]
        self._readers: defaultdict[int, list[Operator]] = defaultdict(list)
        for operator in floats.operators:
            if operator.op not in PASSING:
                for tensor in dict.fromkeys(_computed(floats, operator)):
                    self._readers[tensor].append(operator)

    # --- what makes partners ---

    def match_named(
        self,
        ours: Sequence[int],
        theirs: Sequence[int],
        our_names: Sequence[str],
        their_names: Sequence[str],
    ) -> None:
        """Pair the graphs' inputs or outputs by signature names, if both have the same names."""
        named = dict(zip(their_names, theirs, strict=True))
        if len(named) == len(ours) and set(named) == set(our_names):
            self.match_in_order(ours, [named[name] for name in our_names])

    def match_in_order(self, ours: Sequence[int], theirs: Sequence[int]) -> None:
        """Pair the graphs' inputs or outputs by position."""
        if len(ours) == len(theirs):
            for our, their in zip(ours, theirs, strict=True):
                self._add_value(self.quantized.root[our], self.floats.root[their])

    def match_names(self, key: Callable[[str], str], same_op: bool = False) -> None:
        """Pair values whose key is unique in both graphs."""
        theirs = _by_name(self.floats, key)
        for name, ours in _by_name(self.quantized, key).items():
            if not name or len(ours) > 1 or len(theirs.get(name, ())) != 1:
                continue
            (our,), (their,) = ours, theirs[name]
            made, by = self.quantized.producer.get(our), self.floats.producer.get(their)
            if not same_op or (made and by and made.op == by.op):
                self._add_value(our, their)

    def spread(self) -> None:
        """Extend the pairing from known partners to the operators that produce or read them."""
        known = -1
        while known != len(self.values) + len(self.operators):
            known = len(self.values) + len(self.operators)
            for operator in list(self._open):
                partner = self._behind(operator) or self._ahead(operator)
                if partner:
                    self._add_operator(operator, partner)

    # --- how ---

    def _behind(self, operator: Operator) -> Operator | None:
        """The partner of an operator, found through a paired output."""
        for output in operator.outputs:
            their = self.values.get(self.quantized.root[output])
            partner = None if their is None else self.floats.producer.get(their)
            if partner and self._fits(operator, partner):
                return partner
        return None

    def _ahead(self, operator: Operator) -> Operator | None:
        """The partner of an operator, found through its inputs; all of them must be paired."""
        inputs = _computed(self.quantized, operator)
        partners = [self.values.get(tensor) for tensor in inputs]
        if not inputs or None in partners:
            return None

        def reads_them(other: Operator) -> bool:
            theirs: list[int | None] = list(_computed(self.floats, other))
            if operator.op in _COMMUTATIVE:
                return sorted(theirs, key=str) == sorted(partners, key=str)
            return len(theirs) >= len(partners) and theirs[: len(partners)] == partners

        first = partners[0]
        assert first is not None
        choice = [
            other
            for other in self._readers[first]
            if reads_them(other)
            and self._fits(operator, other)
            and self._same_sizes(operator, other)
        ]
        if len(choice) < 2:
            return choice[0] if choice else None
        apart = [
            sum(_apart(self.quantized, ours, self.floats, theirs) for ours, theirs in constants)
            for constants in (self._constants(operator, other) for other in choice)
        ]
        if min(apart) < max(apart):
            return choice[int(np.argmin(apart))]
        named = [
            other
            for other in choice
            if _plain_name(self.floats.tensors[other.outputs[0]].name)
            == _plain_name(self.quantized.tensors[operator.outputs[0]].name)
        ]
        return (named or choice)[0]

    def _fits(self, operator: Operator, other: Operator) -> bool:
        """Whether two operators may be partners: same kind, outputs of compatible shapes."""
        if other.index in self._taken_operators or operator.op != other.op:
            return False
        if len(operator.outputs) != len(other.outputs) or not operator.outputs:
            return False
        outputs = zip(operator.outputs, other.outputs, strict=True)
        return all(self._alike(our, their) for our, their in outputs)

    def _same_sizes(self, operator: Operator, other: Operator) -> bool:
        """Whether two operators' weights have the same shapes."""
        return all(
            self.quantized.tensors[ours].shape == self.floats.tensors[theirs].shape
            for ours, theirs in self._constants(operator, other)
        )

    def _constants(self, operator: Operator, other: Operator) -> list[tuple[int, int]]:
        """The pairs of quantized and float constants that two operators read."""
        pairs = []
        for our, their in zip(operator.inputs, other.inputs, strict=False):
            if our < 0 or their < 0:
                continue
            root, partner = self.quantized.root[our], self.floats.root[their]
            if (
                self.quantized.is_constant(root)
                and self.quantized.is_quantized(root)
                and self.floats.is_constant(partner)
            ):
                pairs.append((root, partner))
        return pairs

    def _alike(self, our: int, their: int) -> bool:
        """Whether two tensors' shapes are compatible; a length of None fits any other."""
        ours, theirs = self.quantized.tensors[our].open_shape, self.floats.tensors[their].open_shape
        return len(ours) == len(theirs) and all(
            None in (here, there) or here == there for here, there in zip(ours, theirs, strict=True)
        )

    def _add_value(self, our: int, their: int) -> None:
        known = our in self.values or their in self._taken_values
        computed = self.quantized.is_computed(our) and self.floats.is_computed(their)
        if not known and computed and self._alike(our, their):
            self.values[our] = their
            self._taken_values.add(their)

    def _add_operator(self, operator: Operator, other: Operator) -> None:
        self._open.remove(operator)
        self.operators[operator.index] = other
        self._taken_operators.add(other.index)
        for our, their in zip(operator.outputs, other.outputs, strict=True):
            self._add_value(self.quantized.root[our], self.floats.root[their])
        ours, theirs = _computed(self.quantized, operator), _computed(self.floats, other)
        if operator.op in _COMMUTATIVE:  # inputs can only be told apart once one is left
            known = {self.values.get(tensor) for tensor in ours}
            ours = [tensor for tensor in ours if tensor not in self.values]
            theirs = [tensor for tensor in theirs if tensor not in known]
            if len(ours) != 1:
                return
        if len(ours) == len(theirs):
            for our, their in zip(ours, theirs, strict=True):
                self._add_value(our, their)


def _computed(graph: Graph, operator: Operator) -> list[int]:
    """The roots of an operator's inputs, without constants and states."""
    roots = [graph.root[tensor] for tensor in operator.inputs if tensor >= 0]
    return [root for root in roots if graph.is_computed(root)]


def _by_name(graph: Graph, key: Callable[[str], str]) -> dict[str, set[int]]:
    """Key -> the values that include a tensor with that key."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for tensor in graph.tensors:
        root = graph.root[tensor.index]
        if graph.is_computed(root):
            found[key(tensor.name)].add(root)
    return found


def constant_values(graph: Graph, tensor: int) -> Float64Array | None:
    """A constant's floats, dequantized if it holds codes; None if it cannot be read."""
    found = graph.tensors[tensor]
    try:
        with np.errstate(invalid="ignore"):  # NaN in float16
            values = found.constant().astype(np.float64)
    except FieldError:
        return None
    if found.quantization is None:
        return values if found.type in FLOATS else None
    scale, zero_point = found.quantization.scale, found.quantization.zero_point
    if found.quantization.unread or not scale.size:
        return None
    shape = [1] * values.ndim
    if scale.size > 1:
        axis = found.quantization.axis
        if not 0 <= axis < values.ndim or values.shape[axis] != scale.size:
            return None
        shape[axis] = -1
    if zero_point.size not in (0, 1, scale.size):
        return None
    zeros = zero_point if zero_point.size else np.zeros(1, np.int64)
    zeros = zeros.reshape(shape if zeros.size > 1 else [1] * values.ndim)
    floats: Float64Array = (values - zeros) * scale.reshape(shape)
    return floats


def similarity(
    quantized: Graph, ours: int, floats: Graph, theirs: int, least: int = 1
) -> float | None:
    """Cosine of the angle between two constants' floats: near 1 for the same weights.

    None if it would be meaningless: fewer than `least` numbers, or all of them zero.
    """
    our, their = constant_values(quantized, ours), constant_values(floats, theirs)
    if our is None or their is None or our.shape != their.shape or our.size < least:
        return None
    norms = float(np.linalg.norm(our) * np.linalg.norm(their))
    if not (norms > 0 and np.isfinite(norms)):
        return None
    return float(np.vdot(our, their)) / norms


def _apart(quantized: Graph, ours: int, floats: Graph, theirs: int) -> float:
    """How much two constants differ, from 0 to 2."""
    alike = similarity(quantized, ours, floats, theirs)
    return 0.0 if alike is None else 1.0 - alike
