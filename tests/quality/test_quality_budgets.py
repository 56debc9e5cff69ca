"""The budgets of size and the rules of the house that no tool checks."""

import ast
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import pytest

MODULE_LINES = 400
FUNCTION_LINES = 50
POSITIONAL_PARAMETERS = 6
VAGUE_NAMES = {"util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Modules = Mapping[str, ast.Module]


def functions(module: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(module) if isinstance(node, Function))


def report(rule: str, faults: list[str]) -> None:
    if faults:
        pytest.fail("\n  ".join([rule, *sorted(faults)]), pytrace=False)


def is_program(module: ast.Module) -> bool:
    """Whether the module is also started as a process: it then talks to the system, like the command line."""
    return any(
        isinstance(node, ast.If) and isinstance(node.test, ast.Compare) and ast.unparse(node.test.left) == "__name__"
        for node in module.body
    )


def test_modules_are_small(texts: Mapping[str, str]) -> None:
    sizes = {name: text.count("\n") for name, text in texts.items() if name.endswith(".py")}
    faults = [
        f"{name}: {lines} lines"
        for name, lines in sizes.items()
        if lines > MODULE_LINES and name.startswith(("mlstack/", "examples/"))
    ]
    report(f"A module has at most {MODULE_LINES} lines; split by what changes together:", faults)


def test_functions_are_short(library: Modules) -> None:
    faults = []
    for name, module in library.items():
        for function in functions(module):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > FUNCTION_LINES:
                faults.append(f"{name}:{function.lineno}: {function.name} has {lines} lines")
    report(f"A function has at most {FUNCTION_LINES} lines:", faults)


def test_functions_take_few_positional_parameters(library: Modules) -> None:
    faults = []
    for name, module in library.items():
        if name.startswith("mlstack/cli/"):
            continue  # typer declares options as parameters
        for function in functions(module):
            arguments = [*function.args.posonlyargs, *function.args.args]
            count = len([argument for argument in arguments if argument.arg not in {"self", "cls"}])
            if count > POSITIONAL_PARAMETERS:
                faults.append(f"{name}:{function.lineno}: {function.name} takes {count}")
    report(f"At most {POSITIONAL_PARAMETERS} positional parameters; make the others keyword-only:", faults)


def test_modules_are_named_after_what_they_do(tracked: tuple[str, ...]) -> None:
    faults = [name for name in tracked if VAGUE_NAMES & {PurePosixPath(name).stem, *PurePosixPath(name).parent.parts}]
    report("Modules and folders with names that say nothing:", faults)


def test_public_functions_state_their_contract(library: Modules) -> None:
    faults = []
    for name, module in library.items():
        classes = [node for node in module.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
        bodies = [module.body, *(node.body for node in classes)]
        faults += [
            f"{name}:{node.lineno}: {node.name}"
            for node in itertools.chain.from_iterable(bodies)
            if isinstance(node, Function | ast.ClassDef)
            and not node.name.startswith("_")
            and ast.get_docstring(node) is None
            and not any(ast.unparse(mark).endswith(("overload", "override")) for mark in node.decorator_list)
        ]
    report("Public functions, methods and classes without a docstring:", faults)


def test_library_code_never_prints_and_never_exits(library: Modules) -> None:
    forbidden = {"print", "exit", "quit", "sys.exit", "SystemExit"}
    faults = []
    for name, module in library.items():
        if name.startswith("mlstack/cli/") or is_program(module):
            continue
        faults += [
            f"{name}:{node.lineno}: {called}()"
            for node in ast.walk(module)
            if isinstance(node, ast.Call) and (called := ast.unparse(node.func)) in forbidden
        ]
    report("Problems are Diagnostics, results are values; only mlstack/cli/ talks to the terminal:", faults)


def test_errors_are_never_swallowed_whole(library: Modules) -> None:
    faults = []
    for name, module in library.items():
        for node in ast.walk(module):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or ast.unparse(node.type) in {"Exception", "BaseException"}
            if broad and all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body):
                faults.append(f"{name}:{node.lineno}")
    report("A broad except that only passes hides every fault; catch what is expected:", faults)


def test_every_unit_test_file_has_a_name_of_its_own(tracked: tuple[str, ...], root: Path) -> None:
    seen: dict[str, str] = {}
    faults = []
    for name in tracked:
        base = PurePosixPath(name).name
        if name.startswith("tests/") and base.startswith("test_") and base.endswith(".py"):
            if base in seen:
                faults.append(f"{name} and {seen[base]}")
            seen[base] = name
    report("pytest imports test files by their base name; these share one:", faults)
