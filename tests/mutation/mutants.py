"""Mutants of a module: its syntax tree with one small fault each. Runs nothing."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.LShift: (ast.RShift,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}

# Functions and methods that are easily mistaken for each other.
_PAIRS = [("min", "max"), ("minimum", "maximum"), ("any", "all")]
_MISTAKEN = dict(_PAIRS) | {second: first for first, second in _PAIRS}

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Mutant:
    """A module with one fault.

    Attributes:
        function: the outermost function that has the fault, with its class: ``Limit.check``; empty
            for a fault outside of functions.
        first_line: of that function's code, its decorators included; 0 outside of functions.
        line: number of the line.
        text: the line, as it is in the source.
        before: the expression or statement.
        after: what became of it.
        lines: the lines of its statement; a test that runs none of them cannot notice.
    """

    function: str
    first_line: int
    line: int
    text: str
    before: str
    after: str
    lines: range

    def __str__(self) -> str:
        return f"{self.function or 'module'}: `{self.text}`: {self.before} -> {self.after}"


def mutants(source: str) -> Iterator[tuple[Mutant, ast.Module]]:
    r"""Every mutant of a module, and its tree, which the next one changes again.

    Messages, annotations, decorators and assertions stay as they are.

    >>> for mutant, _ in mutants("def double(x):\n    return 2 * x\n"):
    ...     print(mutant)
    double: `return 2 * x`: return 2 * x -> return None
    double: `return 2 * x`: 2 * x -> 2 / x
    double: `return 2 * x`: 2 -> 3
    double: `return 2 * x`: 2 -> 1
    """
    tree, texts = ast.parse(source), source.splitlines()
    for place in _places(tree, _Where("", 0, range(0))):
        node = place.node
        before, first = ast.unparse(node), node.lineno
        for replacement in _replacements(node):
            place.put(ast.fix_missing_locations(ast.copy_location(replacement, node)))
            mutant = Mutant(
                place.where.function,
                place.where.first_line,
                first,
                texts[first - 1].strip(),
                _shown(before),
                _shown(ast.unparse(replacement)),
                place.where.lines,
            )
            yield mutant, tree
            place.put(node)


def _shown(code: str) -> str:
    first, *more = code.splitlines()
    return f"{first} ..." if more else first


@dataclass(frozen=True)
class _Where:
    function: str
    first_line: int
    lines: range


@dataclass(frozen=True)
class _Place:
    """A node of the tree, and where to put another in its stead."""

    node: Any
    where: _Where
    parent: ast.AST
    field: str
    index: int | None

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def _places(parent: ast.AST, where: _Where, owner: str = "") -> Iterator[_Place]:
    for field, index, node in _children(parent):
        here, inside = where, owner
        if isinstance(node, ast.stmt):
            here = _Where(where.function, where.first_line, _lines(node))
        if isinstance(node, ast.expr | ast.stmt):
            yield _Place(node, here, parent, field, index)
        if isinstance(node, _Function) and not where.function:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            here = _Where(owner + node.name, first, here.lines)
        elif isinstance(node, ast.ClassDef):
            inside = f"{owner}{node.name}."
        yield from _places(node, here, inside)


def _children(parent: ast.AST) -> Iterator[tuple[str, int | None, ast.AST]]:
    """What may be mutated, with the field that holds it."""
    if isinstance(parent, ast.Assert):
        return
    for field, value in ast.iter_fields(parent):
        if field in ("annotation", "returns", "decorator_list", "bases", "type_comment"):
            continue
        if isinstance(value, list):
            for index, each in enumerate(value):
                if isinstance(each, ast.AST):
                    yield field, index, each
        elif isinstance(value, ast.AST):
            yield field, None, value


def _lines(statement: ast.stmt) -> range:
    """Of a statement; of a compound one those of its head."""
    body = getattr(statement, "body", None)
    last = body[0].lineno - 1 if body else statement.end_lineno or statement.lineno
    return range(statement.lineno, max(last, statement.lineno) + 1)


def _replacements(node: ast.AST) -> Iterator[Any]:
    match node:
        case ast.Compare():
            for index, operator in enumerate(node.ops):
                for other in _OPERATORS[type(operator)]:
                    ops = [*node.ops[:index], other(), *node.ops[index + 1 :]]
                    yield ast.Compare(node.left, ops, node.comparators)
        case ast.BinOp():
            for other in _OPERATORS.get(type(node.op), ()):
                yield ast.BinOp(node.left, other(), node.right)
        case ast.BoolOp():
            yield ast.BoolOp(_OPERATORS[type(node.op)][0](), node.values)
        case ast.UnaryOp():
            yield node.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int()):
            yield from (ast.Constant(node.value + 1), ast.Constant(node.value - 1))
        case ast.Constant(value=float()):
            yield from (ast.Constant(node.value * 2 or 1.0), ast.Constant(node.value / 2 or -1.0))
        case ast.Call(func=ast.Name(id="abs")):
            yield node.args[0]
        case ast.Call(func=ast.Name() as function) if function.id in _MISTAKEN:
            yield ast.Call(ast.Name(_MISTAKEN[function.id], ast.Load()), node.args, node.keywords)
        case ast.Call(func=ast.Attribute() as method) if method.attr in _MISTAKEN:
            other = ast.Attribute(method.value, _MISTAKEN[method.attr], ast.Load())
            yield ast.Call(other, node.args, node.keywords)
        case ast.If() if _is_truth(node.test):
            yield ast.If(_negated(node.test), node.body, node.orelse)
        case ast.IfExp() if _is_truth(node.test):
            yield ast.IfExp(_negated(node.test), node.body, node.orelse)
        case ast.Return(value=ast.Constant(value=None | False)):
            return  # None would do as well
        case ast.Return(value=ast.expr()):
            yield ast.Return(ast.Constant(None))
        case ast.AugAssign():
            yield ast.Pass()
            for other in _OPERATORS.get(type(node.op), ()):
                yield ast.AugAssign(node.target, other(), node.value)
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue() | ast.Break():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            yield ast.Pass()


def _is_truth(test: ast.expr) -> bool:
    """Whether no mutant of the test itself negates it."""
    if isinstance(test, ast.Compare):
        return len(test.ops) > 1
    return not isinstance(test, ast.UnaryOp)


def _negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)
