"""Arithmetic expressions, evaluated without eval: Python's grammar is parsed, and only numbers,
operators and a few functions are understood. Sizes are bounded before each operation."""

import ast
import math
import operator
from collections.abc import Callable

Number = int | float

LENGTH_MAX = 500
BITS_MAX = 4096
"""Integers beyond this are refused before they are computed."""
DIGITS_MAX = 300


class Unfit(ValueError):
    """The expression cannot be evaluated; the text says why."""


def _round(value: Number, digits: int = 0) -> Number:
    """Python computes 10 ** -digits without a bound."""
    if abs(digits) > DIGITS_MAX:
        raise Unfit(f"round takes at most {DIGITS_MAX} digits")
    return round(value, digits) if digits else round(value)


_BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Number], Number]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e, "tau": math.tau}
_FUNCTIONS: dict[str, tuple[Callable[..., Number], int, int]] = {
    "abs": (abs, 1, 1),
    "acos": (math.acos, 1, 1),
    "asin": (math.asin, 1, 1),
    "atan": (math.atan, 1, 1),
    "ceil": (math.ceil, 1, 1),
    "cos": (math.cos, 1, 1),
    "degrees": (math.degrees, 1, 1),
    "exp": (math.exp, 1, 1),
    "floor": (math.floor, 1, 1),
    "log": (math.log, 1, 2),
    "log10": (math.log10, 1, 1),
    "log2": (math.log2, 1, 1),
    "max": (max, 2, 100),
    "min": (min, 2, 100),
    "radians": (math.radians, 1, 1),
    "round": (_round, 1, 2),
    "sin": (math.sin, 1, 1),
    "sqrt": (math.sqrt, 1, 1),
    "tan": (math.tan, 1, 1),
}


def evaluate(expression: str) -> Number:
    """The value of an arithmetic expression. Raises Unfit."""
    if len(expression) > LENGTH_MAX:
        raise Unfit(f"the expression is longer than {LENGTH_MAX} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Unfit("this is not an arithmetic expression") from None
    try:
        return _value(tree.body)
    except Unfit:
        raise
    except ZeroDivisionError:
        raise Unfit("division by zero") from None
    except (ArithmeticError, ValueError, TypeError, RecursionError) as error:
        raise Unfit(f"this cannot be computed: {error}") from None


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _checked(value)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            a, b = _value(left), _value(right)
            if isinstance(op, ast.Pow):
                _check_power(a, b)
            return _checked(_BINARY[type(op)](a, b))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            function, fewest, most = _FUNCTIONS[name]
            if not fewest <= len(args) <= most:
                raise Unfit(f"{name} does not take {len(args)} arguments")
            return _checked(function(*map(_value, args)))
    raise Unfit("only numbers, + - * / // % **, parentheses and known functions can be computed")


def _check_power(base: Number, exponent: Number) -> None:
    if (
        isinstance(base, int)
        and isinstance(exponent, int)
        and exponent > 0
        and base.bit_length() * exponent > BITS_MAX
    ):
        raise Unfit("the result is too large")


def _checked(value: Number) -> Number:
    if isinstance(value, int):
        if value.bit_length() > BITS_MAX:
            raise Unfit("the result is too large")
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise Unfit("the result is not a finite real number")
