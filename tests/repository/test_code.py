"""The house rules of the code: small pieces, said in words, each in its place."""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from seatrial import errors

ROOT = Path(__file__).parents[2]
FUNCTION_LINES = 50
FILE_LINES = 600
COMPONENT_LINES = 15
PIPELINE_LINES = 60
EXCEPTIONS: dict[str, str] = {
    # A file, or a file:function, and the reason why it may be longer.
    "tests/local/serving/conftest.py:make_bundle": "all files of a bundle, in the order of training",
}
VAGUE_NAMES = {"utils", "util", "common", "helpers", "helper", "misc", "tools", "lib", "base", "core"}
ERRORS = dict(inspect.getmembers(errors, inspect.isclass))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def files(*folders: str) -> list[str]:
    """Return the Python files below folders of the repository."""
    return sorted(
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    )


LIBRARY = files("src")
CODE = [*LIBRARY, *files("components", "pipelines", "models", "benchmarks", "tools")]
TESTS = files("tests")


@cache
def parsed(name: str) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse((ROOT / name).read_text())


def functions(name: str) -> Iterator[Function]:
    """Yield every function and method of a file."""
    yield from (node for node in ast.walk(parsed(name)) if isinstance(node, Function))


def length(function: Function) -> int:
    """Return a function's lines without its docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    return lines - _docstring_lines(function)


def body_length(function: Function) -> int:
    """Return the lines of a function's body without its docstring."""
    lines = (function.end_lineno or 0) - function.body[0].lineno + 1
    return lines - _docstring_lines(function)


def _docstring_lines(function: Function) -> int:
    first = function.body[0]
    return (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) else 0


@pytest.mark.parametrize("name", [*CODE, *TESTS])
def test_files_and_functions_are_small(name: str) -> None:
    """A function has at most 50 lines without its docstring, and a file 600."""
    lines = (ROOT / name).read_text().count("\n")
    long = [f"{name}:{function.name}" for function in functions(name) if length(function) > FUNCTION_LINES]

    assert lines <= FILE_LINES or name in EXCEPTIONS
    assert [function for function in long if function not in EXCEPTIONS] == []


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_exceptions_are_still_needed(name: str) -> None:
    """What has become small enough is an exception no more, and each has a reason."""
    path, _, function = name.partition(":")
    lines = [length(found) for found in functions(path) if found.name == function] or [0]

    assert EXCEPTIONS[name]
    assert max(lines) > FUNCTION_LINES or (ROOT / path).read_text().count("\n") > FILE_LINES


@pytest.mark.parametrize("name", files("components"))
def test_components_are_thin(name: str) -> None:
    """A component unwraps its inputs and calls the library; nothing is installed when it runs."""
    for function in functions(name):
        assert body_length(function) <= COMPONENT_LINES, f"{function.name} in {name}"
    if name.endswith("/component.py"):
        decorated = [function for function in functions(name) if function.decorator_list]
        decorators = [ast.unparse(function.decorator_list[0]) for function in decorated]
        assert decorators == ["step"]
        assert "packages_to_install" not in (ROOT / name).read_text()


@pytest.mark.parametrize("name", files("pipelines"))
def test_pipelines_compose(name: str) -> None:
    """A pipeline is a short list of steps, and reads as the story."""
    for function in functions(name):
        assert body_length(function) <= PIPELINE_LINES, f"{function.name} in {name}"


@pytest.mark.parametrize("name", [*CODE, *files("tests/support"), "tests/conftest.py"])
def test_modules_say_their_idea(name: str) -> None:
    """Every module opens with a docstring of at least a sentence."""
    said = ast.get_docstring(parsed(name))

    assert said, f"{name} has no docstring"
    assert "." in said


@pytest.mark.parametrize("name", LIBRARY)
def test_names_say_what_is_in_a_module(name: str) -> None:
    """No module is a drawer for what fits nowhere else."""
    assert VAGUE_NAMES.isdisjoint([*Path(name).with_suffix("").parts])


def raised(function: Function, private: dict[str, Function], seen: set[str]) -> set[str]:
    """Return the classes of our errors that a function raises, itself or by private functions of its module."""
    found: set[str] = set()
    for node in _own_nodes(function):
        called = node.func if isinstance(node, ast.Call) else None
        name = (
            called.id
            if isinstance(called, ast.Name)
            else called.attr
            if isinstance(called, ast.Attribute)
            else ""
        )
        if (
            isinstance(node, ast.Raise)
            and isinstance(node.exc, ast.Call)
            and isinstance(node.exc.func, ast.Name)
        ):
            found |= {node.exc.func.id} & ERRORS.keys()
        if name in private and name not in seen:
            found |= raised(private[name], private, seen | {name})
    return found - caught(function)


def _own_nodes(function: Function) -> Iterator[ast.AST]:
    """Yield the nodes of a function, without those of functions within it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, Function | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def caught(function: Function) -> set[str]:
    """Return the classes of our errors that a function handles."""
    handlers = [
        node.type for node in _own_nodes(function) if isinstance(node, ast.ExceptHandler) and node.type
    ]
    return {name.id for handler in handlers for name in ast.walk(handler) if isinstance(name, ast.Name)}


def public_functions(name: str) -> Iterator[Function]:
    """Yield what can be called from elsewhere: public functions, and public methods of public classes."""
    for node in parsed(name).body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from (
                inner for inner in node.body if isinstance(inner, Function) and not inner.name.startswith("_")
            )


def _is_documented(kind: str, said: str) -> bool:
    """An error is documented by its own name or by that of a class that it is one of."""
    return any(f"{parent.__name__}:" in said for parent in ERRORS[kind].__mro__)


@pytest.mark.parametrize("name", [name for name in LIBRARY if "/cli/" not in name])
def test_what_is_raised_is_documented(name: str) -> None:
    """A public function's docstring says under Raises which of our errors it raises."""
    private = {node.name: node for node in functions(name) if node.name.startswith("_")}
    silent = [
        f"{name}:{function.lineno}: {function.name} raises {kind}"
        for function in public_functions(name)
        for kind in sorted(raised(function, private, set()))
        if not _is_documented(kind, (ast.get_docstring(function) or "").partition("Raises:")[2])
    ]

    assert silent == []


@pytest.mark.parametrize("name", LIBRARY)
def test_our_errors_are_our_own(name: str) -> None:
    """No public function raises a bare ValueError or the like across the library, where pydantic does not want it."""
    bare = {
        kind
        for kind, value in vars(builtins).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    allowed = {
        "ValueError",
        "TypeError",
        "NotImplementedError",
        "StopIteration",
        "KeyError",
        "AttributeError",
    }
    found = [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(parsed(name))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in bare - allowed
    ]

    assert found == []


TEST_FILES = [name for name in TESTS if Path(name).name.startswith("test_")]


@pytest.mark.parametrize("name", TEST_FILES)
def test_each_test_states_a_behaviour(name: str) -> None:
    """A test's docstring is a sentence that is true when the test passes."""
    silent = [
        function.name
        for function in functions(name)
        if function.name.startswith("test_")
        and not (ast.get_docstring(function) or "").rstrip().endswith((".", ")"))
    ]

    assert silent == []


def test_exit_codes_are_unique_and_drawn() -> None:
    """Each class of errors has a code of its own, and its place in the drawing of the module."""
    kinds = [kind for kind in ERRORS.values() if issubclass(kind, errors.SeatrialError)]
    codes = [kind.exit_code for kind in kinds]
    lines = (errors.__doc__ or "").splitlines()

    assert len(set(codes)) == len(codes)
    assert all(0 < code < 64 for code in codes)
    for kind in kinds:
        (line,) = [line for line in lines if f" {kind.__name__} " in line]
        assert f" {kind.exit_code}" in line
        assert kind.__doc__
