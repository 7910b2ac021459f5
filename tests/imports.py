"""Who imports and reads what in the source: told from the files, nothing is imported."""

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

SRC = Path(__file__).resolve().parents[1] / "src"
PACKAGE = SRC / "fairweather"


class Import(NamedTuple):
    """`from target import name` (or `import target`, where name is None), with absolute names."""

    line: int
    target: tuple[str, ...]
    name: str | None


def absolute(target: str, level: int, package: tuple[str, ...]) -> tuple[str, ...]:
    """What a possibly relative import means, written inside `package`."""
    start = package[: len(package) - level + 1] if level else ()
    return (*start, *(part for part in target.split(".") if part))


def nodes_of(tree: ast.AST, *, typing: bool) -> Iterator[ast.AST]:
    """Every node of a source; with `typing` also those that only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=otherwise) if not typing:
                yield from nodes_of(ast.Module(otherwise, []), typing=typing)
            case _:
                yield node
                yield from nodes_of(node, typing=typing)


def imports_of(source: str, package: tuple[str, ...], *, typing: bool = True) -> Iterator[Import]:
    """Every import in the source, also inside functions and through `import_module("…")`."""
    for node in nodes_of(ast.parse(source), typing=typing):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(node.lineno, absolute(alias.name, 0, package), None)
            case ast.ImportFrom(module=module, names=names, level=level):
                for alias in names:
                    target = absolute(module or "", level, package)
                    yield Import(node.lineno, target, alias.name)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                level = len(name) - len(name.lstrip("."))
                yield Import(node.lineno, absolute(name, level, package), None)


def listed_names(source: str) -> set[str]:
    """What a package shows: its `__all__`, or `from .room import Name as Name` in a stub."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List() as value):
                names |= set(ast.literal_eval(value))
            case ast.ImportFrom(names=aliases):
                names |= {alias.name for alias in aliases if alias.asname == alias.name}
    return names


def front_door(package: Path) -> Path:
    """The file that lists what a package shows: its stub if it imports when names are used."""
    stub = package / "__init__.pyi"
    return stub if stub.exists() else package / "__init__.py"


def public_names() -> dict[str, set[str]]:
    """The names that each wing shows, for the wings that have rooms."""
    return {
        init.parent.name: listed_names(front_door(init.parent).read_text("utf-8"))
        for init in PACKAGE.glob("*/__init__.py")
    }


def module_of(path: Path, *, root: Path = SRC) -> tuple[str, ...]:
    """The absolute name of a source file; that of its package for an `__init__`."""
    parts = path.relative_to(root).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def room_of(found: Import, files: dict[tuple[str, ...], Path]) -> tuple[str, ...] | None:
    """The module of ours that an import ends in, by way of the packages that show its name."""
    if found.name is not None and (*found.target, found.name) in files:
        return (*found.target, found.name)
    path = files.get(found.target)
    if path is None or found.name is None or path.name != "__init__.py":
        return found.target if path else None
    for shown in imports_of(front_door(path.parent).read_text("utf-8"), found.target):
        if shown.name == found.name:
            return room_of(shown, files)
    return found.target


def import_graph(wing: Path, *, root: Path = SRC) -> dict[str, set[str]]:
    """Room → the rooms of the same wing that it imports, wherever in the file that happens."""
    files = {module_of(path, root=root): path for path in wing.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for module, path in files.items():
        if path.name == "__init__.py":  # a front door, which no room of the wing goes through
            continue
        found = imports_of(path.read_text("utf-8"), module[:-1], typing=False)
        rooms = {room for one in found if (room := room_of(one, files))}
        graph[".".join(module[1:])] = {".".join(room[1:]) for room in rooms}
    return graph


def attributes_read(paths: Iterable[Path], owner: str) -> set[str]:
    """What some files read of anything called `owner`."""
    return {name for path in paths for called, name in _attributes(path) if called == owner}


@functools.cache
def _attributes(path: Path) -> set[tuple[str, str]]:
    """Every attribute that a file reads, after the name that it is read of."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Attribute(
                value=ast.Name(id=called) | ast.Attribute(attr=called), attr=name, ctx=ast.Load()
            ):
                found.add((called, name))
    return found
