"""What mistakes there are to make in a file: those of cosmic-ray, but for the ones nobody makes.

A comparison turned or made strict, `and` for `or`, a `not` lost or added, a number one off, true for false, plus for
minus, a loop that stops or never runs.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

COMPARISONS = {
    "Eq": ("NotEq",), "NotEq": ("Eq",), "Lt": ("LtE", "GtE"), "LtE": ("Lt", "Gt"), "Gt": ("GtE", "LtE"),
    "GtE": ("Gt", "Lt"), "Is": ("IsNot",), "IsNot": ("Is",),
}  # fmt: skip
OPERATORS = (
    *(f"core/ReplaceComparisonOperator_{old}_{new}" for old, others in COMPARISONS.items() for new in others),
    "core/ReplaceAndWithOr", "core/ReplaceOrWithAnd", "core/AddNot", "core/ReplaceUnaryOperator_Delete_Not",
    "core/NumberReplacer", "core/ReplaceTrueWithFalse", "core/ReplaceFalseWithTrue",
    "core/ReplaceBreakWithContinue", "core/ReplaceContinueWithBreak", "core/ZeroIterationForLoop",
    "core/ReplaceBinaryOperator_Add_Sub", "core/ReplaceBinaryOperator_Sub_Add",
    "core/ReplaceBinaryOperator_Mul_Div", "core/ReplaceBinaryOperator_Div_Mul",
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Mutant:
    """One mistake: the line (from 1) and its text before and after, and the function it is in."""

    line: int
    function: str
    before: str
    after: str
    source: str


def mutants(source: str) -> list[Mutant]:
    """Every mistake that changes what runs, in the order of the lines."""
    found = {mutant for operator in OPERATORS for mutant in _of(source, operator)}
    return sorted(found)


def sample(found: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """So many of them, the same ones for a seed; all when there are fewer."""
    if count >= len(found):
        return found
    return sorted(random.Random(seed).sample(found, count))  # noqa: S311 - which are tried, not a secret


def _of(source: str, operator: str) -> Iterator[Mutant]:
    made = get_operator(operator)()
    tree = get_ast(source)
    count = sum(len(list(made.mutation_positions(node))) for node in ast_nodes(tree))
    functions = _functions(source)
    for occurrence in range(count):
        changed = mutate_code(source, made, occurrence)
        if changed is None or _same(source, changed):
            continue
        before, after = source.splitlines(), changed.splitlines()
        place = next(number for number, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1])
        was, now = (" ".join(text[place].split()) for text in (before, after))
        yield Mutant(place + 1, functions.get(place + 1, ""), was, now, changed)


def _same(source: str, changed: str) -> bool:
    """Whether only text for people or types differ: docstrings and annotations are not run."""
    try:
        return _run(source) == _run(changed)
    except SyntaxError:
        return True


def _run(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
            # Whether arguments may be given by name is for callers, whom types check.
            node.args.posonlyargs, node.args.args, node.args.kwonlyargs = (
                [],
                [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs],
                [],
            )
            node.args.kw_defaults = []
        if isinstance(node, ast.ClassDef):
            # That a dataclass is frozen or has slots keeps people from mistakes, and changes no decision.
            node.decorator_list = [one for one in node.decorator_list if "dataclass" not in ast.dump(one)]
    return ast.dump(tree)


def _functions(source: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.update(dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), node.name))
    return found
