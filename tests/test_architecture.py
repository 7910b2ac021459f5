"""The rules of the house that a machine can keep: who imports whom, and what is left out."""

import ast
import graphlib
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from imports import (
    PACKAGE,
    SRC,
    Import,
    import_graph,
    imports_of,
    listed_names,
    module_of,
    public_names,
)

ROOT = SRC.parent

# From the top down. A wing imports from the floors below its own, and from nothing beside or above.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"keras", "benchmark", "serving"},
    {"training", "evaluation"},
    {"data", "restoration"},
    {"export"},
    {"models", "imaging"},
    {"hardware", "files"},
    {"errors"},
)
FLOOR_OF = {wing: floor for floor, wings in enumerate(FLOORS) for wing in wings}
MAY_IMPORT_THE_PACKAGE = {"__main__", "cli"}  # for the rest it would be a circle

MAX_LINES = 400
# Not split yet: at most 450 lines. This list may only get shorter.
LONG_FILES = {
    "tests/test_augmentation.py",
    "tests/test_degradations.py",
    "tests/test_losses.py",
    "tests/test_metrics.py",
    "tests/test_restorer.py",
    "tests/test_sources.py",
}
# Imports that close a circle within a wing and are not mended yet; this list may only get shorter.
KNOWN_CIRCLES: set[tuple[str, str]] = set()
HEAVY = {
    "torch", "numpy", "scipy", "skimage", "PIL", "tifffile", "safetensors", "huggingface_hub",
    "pydantic", "yaml", "typer", "rich", "lightning", "matplotlib", "keras", "openvino",
}  # fmt: skip
PUBLIC_NAMES = {
    "FairweatherError",
    "Restorer",
    "__version__",
    "classify_degradation",
    "create_model",
    "list_models",
    "load_model",
    "restore",
}


def fault(found: Import, wing: str, public: dict[str, set[str]]) -> str | None:
    """What is wrong with one import in `wing` ("" is the package's own `__init__`), if anything."""
    root, *path = found.target
    if root != "fairweather":
        return None
    name = found.name
    if not path and (name in FLOOR_OF or name in public):  # from fairweather import imaging
        path, name = [name], None
    if not path:
        if wing in MAY_IMPORT_THE_PACKAGE:
            return None
        return "imports the package itself, which imports every wing; import from the wing"
    other, *rooms = path
    if other == wing:
        return None
    if other not in FLOOR_OF:
        return f"imports {other!r}, which has no floor; give it one in FLOORS"
    if wing and wing not in FLOOR_OF:
        return f"lies in {wing!r}, which has no floor; give it one in FLOORS"
    if wing and FLOOR_OF[other] <= FLOOR_OF[wing]:
        return f"imports {other!r}, which is not below {wing!r}"
    if rooms:
        return f"enters a room, '{'.'.join(path)}'; import from 'fairweather.{other}'"
    if name is not None and name not in public.get(other, {name}):
        return f"imports {name!r}, which is not in the __all__ of 'fairweather.{other}'"
    return None


def faults(source: str, module: str, public: dict[str, set[str]]) -> list[str]:
    """The imports in `module` (a path below src/) that break the rules, one line for each."""
    *package, file = Path(module).parts
    wing = Path(file).stem if len(package) == 1 else package[1]
    wing = "" if wing == "__init__" else wing
    return [
        f"{module}:{found.line} {what}"
        for found in imports_of(source, tuple(package))
        if (what := fault(found, wing, public))
    ]


def project_files() -> list[Path]:
    """The files that git tracks or would track; without git, those in the project's folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        paths = [ROOT / name for name in listed.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        names = ("src", "tests", "benchmarks", "scripts", "docs", "constraints")
        folders = (ROOT / name for name in names)
        paths = [*ROOT.glob("*.*"), *(path for folder in folders for path in folder.rglob("*"))]
    return sorted(path for path in paths if path.is_file() and "__pycache__" not in path.parts)


def text_files() -> Iterator[tuple[str, str]]:
    """The path below the root and the text of each file that is text."""
    for path in project_files():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path.relative_to(ROOT).as_posix(), content.decode("utf-8", errors="replace")


def test_imports_run_only_downwards_and_through_the_front_door() -> None:
    public = public_names()
    sources = {path.relative_to(SRC).as_posix(): path for path in PACKAGE.rglob("*.py*")}
    sources = {module: path for module, path in sources.items() if path.suffix in (".py", ".pyi")}
    assert sources
    found = [
        line
        for module, path in sources.items()
        for line in faults(path.read_text("utf-8"), module, public)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("imaging/image.py", "from fairweather.models import load_model"),
        ("imaging/image.py", "from ..models import load_model"),
        ("imaging/image.py", "from .. import models"),
        ("imaging/image.py", "import fairweather.models"),
        ("imaging/image.py", "from fairweather.restoration import Restorer"),
        ("imaging/image.py", "def later():\n    from fairweather.restoration import Restorer"),
        ("imaging/image.py", "import_module('fairweather.restoration')"),
        ("imaging/image.py", "importlib.import_module('..restoration', __package__)"),
        ("imaging/__init__.py", "from ..models import load_model"),
        ("training/module.py", "from fairweather.evaluation import evaluate"),
        ("benchmark.py", "from fairweather.cli import main"),
        ("errors.py", "from fairweather.imaging import read_image"),
        ("restoration/restorer.py", "from fairweather.imaging.image import read_image"),
        ("restoration/restorer.py", "from fairweather.imaging import image"),
        ("restoration/restorer.py", "from fairweather.imaging import _private"),
        ("restoration/restorer.py", "from fairweather import Restorer"),
        ("restoration/restorer.py", "from fairweather import nowhere"),
        ("restoration/restorer.py", "from fairweather.nowhere import anything"),
        ("nowhere/room.py", "from fairweather.imaging import read_image"),
        ("cli.py", "from fairweather.data.degradations import rain"),
        ("__init__.py", "from fairweather.models.checkpoint import load_model"),
    ],
)
def test_a_wrong_import_is_caught(module: str, source: str) -> None:
    public = {"imaging": {"read_image"}, "models": {"load_model"}, "evaluation": {"evaluate"}}
    assert len(faults(source, f"fairweather/{module}", public)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("imaging/image.py", "import numpy\nfrom fairweather.errors import ImageError"),
        (
            "imaging/image.py",
            "from .tiles import split\nfrom fairweather.imaging.tiles import merge",
        ),
        (
            "data/degradations/rain.py",
            "from ..pairs import Pair\nfrom ...imaging import read_image",
        ),
        ("restoration/restorer.py", "from fairweather import imaging"),
        ("training/module.py", "from fairweather.models import load_model"),
        ("cli.py", "from fairweather import Restorer\nfrom fairweather.benchmark import measure"),
        ("__main__.py", "from fairweather.cli import main"),
        (
            "__init__.py",
            "from fairweather.errors import FairweatherError\nfrom .models import load_model",
        ),
    ],
)
def test_a_right_import_is_not(module: str, source: str) -> None:
    public = {"imaging": {"read_image"}, "models": {"load_model"}, "data": {"Pair"}}
    assert faults(source, f"fairweather/{module}", public) == []


def faults_outside(source: str, public: dict[str, set[str]]) -> list[str]:
    """The imports that break the rule for files beside src/: only what a wing shows."""
    return [
        what
        for found in imports_of(source, ())
        if (what := fault(found, "__main__", public))  # which is above all wings, too
    ]


def test_files_outside_of_the_package_import_public_names_only() -> None:
    public = public_names()
    paths = [
        path
        for folder in ("benchmarks", "scripts", "examples")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert {"quality_page.py", "train_classifier.py"} <= {path.name for path in paths}
    found = [
        f"{path.relative_to(ROOT)}: {what}"
        for path in paths
        for what in faults_outside(path.read_text("utf-8"), public)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import fairweather as fw", 0),
        ("from fairweather import Restorer", 0),
        ("from fairweather.imaging import read_image", 0),
        ("from fairweather.benchmark import race", 0),
        ("from fairweather.imaging import quantise", 1),
        ("from fairweather.imaging.image import read_image", 1),
        ("import fairweather.imaging.image", 1),
        ("def later():\n    from fairweather.imaging import image", 1),
    ],
)
def test_a_wrong_import_outside_of_the_package_is_caught(source: str, count: int) -> None:
    assert len(faults_outside(source, {"imaging": {"read_image"}})) == count


def test_no_file_is_named_for_nothing() -> None:
    vague = {"utils.py", "common.py", "helpers.py"}
    assert [path for path in project_files() if path.name in vague] == []


def circle_in(graph: dict[str, set[str]]) -> list[str] | None:
    """Rooms that import each other in turn, if there are any."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1][::-1]
    return None


@pytest.mark.parametrize("wing", [init.parent.name for init in PACKAGE.glob("*/__init__.py")])
def test_no_room_imports_itself_by_way_of_others(wing: str) -> None:
    graph = import_graph(PACKAGE / wing)
    known = {one for one in KNOWN_CIRCLES if one[0].startswith(f"{wing}.")}
    mended = {
        room: {other for other in others if (room, other) not in known}
        for room, others in graph.items()
    }
    assert circle_in(mended) is None
    assert not known or circle_in(graph), "a known circle is mended: take it off the list"


@pytest.mark.parametrize(
    ("a", "b", "is_circle"),
    [
        ("from fairweather.wing.b import x", "from .a import y", True),
        ("from fairweather.wing import b", "from .a import y", True),
        ("from .b import x", "def f():\n    from fairweather.wing import y", True),
        ("from .b import x", "if TYPE_CHECKING:\n    pass\nelse:\n    from .a import y", True),
        ("from .b import x", "if TYPE_CHECKING:\n    from .a import y", False),
        ("from .b import x", "from fairweather.errors import y", False),
    ],
)
def test_a_circle_is_found_wherever_its_imports_stand(
    tmp_path: Path, a: str, b: str, is_circle: bool
) -> None:
    wing = tmp_path / "fairweather" / "wing"
    wing.mkdir(parents=True)
    (wing / "__init__.py").touch()
    (wing / "__init__.pyi").write_text("from .a import y as y\n")
    (wing / "a.py").write_text(a)
    (wing / "b.py").write_text(b)
    assert (circle_in(import_graph(wing, root=tmp_path)) is not None) == is_circle


def test_files_stay_short() -> None:
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in project_files()
        if path.suffix in (".py", ".pyi")
    }
    long = {
        path: count
        for path, count in lines.items()
        if count > (450 if path in LONG_FILES else MAX_LINES)
    }
    assert not long, f"split these where they change their subject: {long}"
    done = [path for path in LONG_FILES if lines.get(path, 0) <= MAX_LINES]
    assert not done, f"these are short now, or gone: take them off the list: {done}"


def test_the_source_does_without_torchvision_timm_and_basicsr() -> None:
    unwanted = re.compile(r"\b(torchvision|timm|basicsr)\b", re.IGNORECASE)
    found = [
        path for path, text in text_files() if path.startswith("src/") and unwanted.search(text)
    ]
    assert found == []


def test_a_message_names_the_option_beside_the_argument() -> None:
    """`--overwrite (overwrite=True)`: who types a command has no arguments of Python."""
    trees = (ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree))
    said = [ast.unparse(node) for node in nodes if isinstance(node, ast.Raise | ast.Assign)]
    shown = [(text, name) for text in said for name in re.findall(r" \((\w+)=", text)]
    assert len(shown) > 5
    assert [text for text, name in shown if f"--{name.replace('_', '-')}" not in text] == []


def test_no_file_holds_a_path_of_one_machine() -> None:
    machine_path = re.compile(r"(?<![\w.~}\])*/-])/(work|root|home|opt|Users)/")
    found = [
        f"{path}: {match.group()}"
        for path, text in text_files()
        if path != "tests/test_architecture.py"
        for match in machine_path.finditer(text)
    ]
    assert found == []


def test_a_bare_import_loads_nothing_heavy() -> None:
    code = """
import sys, fairweather
from fairweather.models import list_weights
print(*list_weights(), *{name.split(".")[0] for name in sys.modules})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"rain", "fairweather"} <= loaded
    assert loaded & HEAVY == set()


def test_the_public_names() -> None:
    import fairweather

    assert set(fairweather.__all__) == PUBLIC_NAMES
    assert [name for name in PUBLIC_NAMES if not hasattr(fairweather, name)] == []
    with pytest.raises(AttributeError, match="nonsense"):
        fairweather.nonsense  # noqa: B018


def test_the_old_name_of_classify_degradation_still_works() -> None:
    import fairweather

    with pytest.warns(DeprecationWarning, match="classify_degradation"):
        assert fairweather.classify_damage is fairweather.classify_degradation


@pytest.mark.parametrize("package", [path.parent for path in PACKAGE.rglob("__init__.pyi")])
def test_a_package_shows_what_its_stub_lists(package: Path) -> None:
    module = importlib.import_module(".".join(module_of(package / "__init__.py")))
    shown = set(module.__all__) - {"__version__"}
    assert shown == listed_names((package / "__init__.pyi").read_text("utf-8"))
    assert [name for name in shown if not hasattr(module, name)] == []
