"""The expressions of high-level variables: `first if position == 0 else second`. Total, and nothing is ever run.

A text is read as Python reads an expression, and then only a few forms are let through: literals, names, columns of
tables, comparisons, `and`, `or`, `not`, `x if c else y`, `+` and `-`. What comes out is a value of this module, with
what kind of value each part gives known beforehand, so that the only thing that can go wrong in a prompt is a text
that is compared as a number and spells none.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal, TypeAlias

from circuitspec.hypothesis_file.grammar.names import NameSyntaxError

LONGEST = 1000  # characters of an expression
DEEPEST = 50  # parts within parts

Scalar: TypeAlias = str | Decimal | bool
"""What a variable holds."""
Kind: TypeAlias = Literal["text", "number", "truth"]

_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,10})?")  # what sums of a few are exact for
_ALLOWED = "literals, names, ==, !=, <, <=, in, and, or, not, x if c else y, + and -"

_COMPARING: Final[Mapping[type[ast.cmpop], tuple[str, Callable[[Decimal, Decimal], bool]]]] = {
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}


class NotEvaluated(ValueError):
    """A value that an expression cannot do with, in one prompt."""


@dataclass(frozen=True)
class Reference:
    """A name in an expression: a slot, a column of one (`S.plural`), or a variable; `offset` characters in."""

    name: str
    column: str | None
    offset: int
    length: int

    def __str__(self) -> str:
        return self.name if self.column is None else f"{self.name}.{self.column}"


@dataclass(frozen=True)
class Constant:
    """A text, a number, or a truth."""

    value: Scalar


@dataclass(frozen=True)
class Comparison:
    """Two values compared: `==`, `!=`, `<`, `<=`, `>`, `>=`."""

    sign: str
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Membership:
    """Whether a value is among others, or (`negated`) is not."""

    item: Expression
    among: tuple[Expression, ...]
    negated: bool


@dataclass(frozen=True)
class Junction:
    """`and` (all) or `or` (any) of truths."""

    all: bool
    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class Negation:
    """`not`."""

    of: Expression


@dataclass(frozen=True)
class Conditional:
    """`then if condition else otherwise`."""

    condition: Expression
    then: Expression
    otherwise: Expression


@dataclass(frozen=True)
class Sum:
    """`left + right`, or (`minus`) `left - right`."""

    left: Expression
    right: Expression
    minus: bool


Expression: TypeAlias = Reference | Constant | Comparison | Membership | Junction | Negation | Conditional | Sum


def parse_expression(text: str) -> Expression:
    """The expression that a text spells. Raises NameSyntaxError, with the place of what is wrong."""
    start = len(text) - len(text.lstrip())
    body = text.strip().replace("\n", " ").replace("\t", " ")
    if not body:
        raise NameSyntaxError("the expression is empty", 0, max(len(text), 1), "write 0 if S2 == first else 1")
    if len(body) > LONGEST:
        message = f"the expression is longer than {LONGEST} characters"
        raise NameSyntaxError(message, 0, len(text), "make variables of its parts")
    if "\x00" in body:
        raise NameSyntaxError("the expression holds a zero character", 0, len(text), "remove it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's about its own code
            tree = ast.parse(body, mode="eval")
    except SyntaxError as error:
        at = min(start + max((error.offset or 1) - 1, 0), len(text) - 1)
        raise NameSyntaxError("this is no expression", at, 1, f"an expression has {_ALLOWED}") from None
    except (RecursionError, MemoryError):
        raise NameSyntaxError("the expression is too deep", 0, len(text), "make variables of its parts") from None
    return _Reader(body, start).read(tree.body, 0)


class _Reader:
    """From Python's tree to this module's values."""

    def __init__(self, body: str, start: int) -> None:
        self._body, self._start = body, start
        self._bytes = body.encode()

    def _place(self, node: ast.expr) -> tuple[int, int]:
        """(offset, length) in characters of the text as it is written."""
        begin = len(self._bytes[: node.col_offset].decode(errors="replace"))
        end = len(self._bytes[: node.end_col_offset].decode(errors="replace"))
        return self._start + begin, max(end - begin, 1)

    def _wrong(self, node: ast.expr, message: str, hint: str = "") -> NameSyntaxError:
        return NameSyntaxError(message, *self._place(node), hint or f"an expression has {_ALLOWED}")

    def read(self, node: ast.expr, depth: int) -> Expression:
        if depth > DEEPEST:
            raise self._wrong(node, "the expression is too deep", "make variables of its parts")
        below = depth + 1
        match node:
            case ast.Name(id=name):
                return Reference(name, None, *self._place(node))
            case ast.Attribute(value=ast.Name(id=name), attr=column):
                return Reference(name, column, *self._place(node))
            case ast.Constant(value=bool() | str() as value):
                return Constant(value)
            case ast.Constant(value=int() | float()):
                return self._number(node)
            case ast.BoolOp(op=op, values=values):
                return Junction(isinstance(op, ast.And), tuple(self.read(value, below) for value in values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return Negation(self.read(operand, below))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return Sum(Constant(Decimal(0)), self.read(operand, below), minus=True)
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                return Sum(self.read(left, below), self.read(right, below), isinstance(op, ast.Sub))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return Conditional(self.read(test, below), self.read(body, below), self.read(orelse, below))
            case ast.Compare():
                return self._comparison(node, below)
            case ast.Call():
                raise self._wrong(node, "an expression calls no functions")
            case ast.Attribute():
                raise self._wrong(node, "a point stands between a slot and a column", "write SLOT.column")
            case ast.Subscript():
                raise self._wrong(node, "an expression has no brackets behind a name", "write SLOT.column for a column")
            case ast.List() | ast.Tuple() | ast.Set():
                raise self._wrong(node, "a list stands behind `in` alone", "write S in (first, second)")
        raise self._wrong(node, "this cannot stand in an expression")

    def _number(self, node: ast.expr) -> Constant:
        offset, length = self._place(node)
        written = self._body[offset - self._start : offset - self._start + length]
        if _NUMBER.fullmatch(written) is None:
            raise self._wrong(node, f"{written} is not a plain number", "write a number such as 17 or 0.5")
        return Constant(Decimal(written))

    def _comparison(self, node: ast.Compare, depth: int) -> Expression:
        operands = [node.left, *node.comparators]
        parts = [self._compared(operands[i], op, operands[i + 1], depth) for i, op in enumerate(node.ops)]
        return parts[0] if len(parts) == 1 else Junction(True, tuple(parts))

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr, depth: int) -> Expression:
        match op:
            case ast.In() | ast.NotIn():
                if not isinstance(right, ast.List | ast.Tuple | ast.Set) or not right.elts:
                    raise self._wrong(right, "a list stands behind `in`", "write S in (first, second)")
                among = tuple(self.read(one, depth) for one in right.elts)
                return Membership(self.read(left, depth), among, isinstance(op, ast.NotIn))
            case ast.Eq() | ast.NotEq():
                sign = "==" if isinstance(op, ast.Eq) else "!="
            case _ if type(op) in _COMPARING:
                sign = _COMPARING[type(op)][0]
            case _:
                raise self._wrong(right, "`is` compares nothing here", "write ==")
        return Comparison(sign, self.read(left, depth), self.read(right, depth))


def references(expression: Expression) -> Iterator[Reference]:
    """Every name in it."""
    if isinstance(expression, Reference):
        yield expression
    for part in _parts(expression):
        yield from references(part)


def _parts(expression: Expression) -> tuple[Expression, ...]:
    match expression:
        case Comparison(_, left, right) | Sum(left, right, _):
            return (left, right)
        case Membership(item, among, _):
            return (item, *among)
        case Junction(_, parts):
            return parts
        case Negation(of):
            return (of,)
        case Conditional(condition, then, otherwise):
            return (condition, then, otherwise)
    return ()


def kind_of_value(expression: Expression, kinds: Mapping[str, Kind]) -> Kind:
    """What kind of value it gives; `kinds` are those of variables, and every other name is a text.

    Raises NotEvaluated for parts that never go together, such as a text where a truth is asked for.
    """
    match expression:
        case Reference(name, column):
            return "text" if column is not None else kinds.get(name, "text")
        case Constant(value):
            return "truth" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
        case Comparison(sign, left, right):
            pair = (kind_of_value(left, kinds), kind_of_value(right, kinds))
            if "truth" in pair and (sign not in ("==", "!=") or pair[0] != pair[1]):
                raise NotEvaluated(f"{sign} compares a truth (true or false) with something else")
            return "truth"
        case Membership(item, among, _):
            own = kind_of_value(item, kinds)
            for one in among:
                if (kind_of_value(one, kinds) == "truth") != (own == "truth"):
                    raise NotEvaluated("`in` compares a truth (true or false) with something else")
            return "truth"
        case Junction(_, parts):
            if any(kind_of_value(part, kinds) != "truth" for part in parts):
                raise NotEvaluated(f"`{'and' if expression.all else 'or'}` joins truths, such as S2 == first")
            return "truth"
        case Negation(of):
            if kind_of_value(of, kinds) != "truth":
                raise NotEvaluated("`not` is about a truth, such as S2 == first")
            return "truth"
        case Conditional(condition, then, otherwise):
            if kind_of_value(condition, kinds) != "truth":
                raise NotEvaluated("what stands between `if` and `else` is a truth, such as S2 == first")
            either, other = kind_of_value(then, kinds), kind_of_value(otherwise, kinds)
            if either != other:
                raise NotEvaluated(f"the two sides of `if` differ in kind: {either} and {other}")
            return either
        case Sum(left, right, _):
            if "truth" in (kind_of_value(left, kinds), kind_of_value(right, kinds)):
                raise NotEvaluated("+ and - are of numbers, not of a truth (true or false)")
            return "number"


def evaluate(expression: Expression, read: Callable[[str, str | None], Scalar]) -> Scalar:
    """Its value; `read` gives what a name (and column) holds. Raises NotEvaluated for a text that spells no number."""
    match expression:
        case Reference(name, column):
            return read(name, column)
        case Constant(value):
            return value
        case Comparison(sign, left, right):
            return _compare(sign, evaluate(left, read), evaluate(right, read))
        case Membership(item, among, negated):
            own = evaluate(item, read)
            return any(_equal(own, evaluate(one, read)) for one in among) != negated
        case Junction(all_, parts):
            truths = [evaluate(part, read) is True for part in parts]
            return all(truths) if all_ else any(truths)
        case Negation(of):
            return evaluate(of, read) is not True
        case Conditional(condition, then, otherwise):
            return evaluate(then if evaluate(condition, read) is True else otherwise, read)
        case Sum(left, right, minus):
            one, other = as_number(evaluate(left, read)), as_number(evaluate(right, read))
            return one - other if minus else one + other


def _compare(sign: str, left: Scalar, right: Scalar) -> bool:
    if sign in ("==", "!="):
        return _equal(left, right) == (sign == "==")
    by_sign = dict(_COMPARING.values())
    return by_sign[sign](as_number(left), as_number(right))


def _equal(left: Scalar, right: Scalar) -> bool:
    """Texts as texts, but a text as a number beside a number."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, Decimal) or isinstance(right, Decimal):
        return as_number(left) == as_number(right)
    return left == right


def as_number(value: Scalar) -> Decimal:
    """The number that a value is or spells. Raises NotEvaluated."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool) or _NUMBER.fullmatch(value.strip()) is None:
        raise NotEvaluated(f"{value!r} is not a plain number, such as 17 or 0.5")
    return Decimal(value.strip())


def spelled(value: Scalar) -> str:
    """A value as it stands in an answer, or in a table."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return format((value + 0).normalize(), "f") if isinstance(value, Decimal) else value
