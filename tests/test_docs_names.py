"""Every command, name, file and link that the Markdown of the project quotes exists."""

import ast
import functools
import inspect
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imports
import pytest
import typer

import fairweather.errors
from fairweather.cli import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "fairweather"
RECIPES = PACKAGE / "training" / "recipes"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in (
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/**/*.md",
        "src/fairweather/weights/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
CONFTEST = ROOT / "tests" / "conftest.py"
CODE = ("src/", "scripts/", "benchmarks/", "examples/")
FOLDERS = (*CODE, "docs/", "tests/", "constraints/")
ALIASES = {"fw": "", "fk": "keras"}  # as the pages import them; "" is the package itself
OTHER_LIBRARIES = {"autograd", "keras", "nn", "np", "onnxruntime", "skimage", "tf", "torch"}
NOT_OURS = {
    "CUDA_VISIBLE_DEVICES",  # CUDA
    "CosineDecay",  # Keras
    "False",
    "HF_HUB_CACHE",  # huggingface_hub
    "ImportError",
    "ValueError",
    "None",
    "SwapEMAWeights",  # Keras
    "True",
    "triton_op",  # PyTorch
    "utils.py",  # which CONTRIBUTING rules out
}


def test_pages_are_found() -> None:
    assert {"README.md", "docs/recipes.md", "src/fairweather/weights/rain.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_quotes_exists(page: str) -> None:
    assert faults((ROOT / page).read_text("utf-8"), page) == []


@pytest.mark.parametrize(
    "text",
    [
        "`fairweather polish photo.jpg`",
        "`fairweather models list|polish`",
        "`fairweather restore photo.jpg --shine`",
        "`fairweather train rain_x --data DATA`",
        "```sh\ntime fairweather restore photo.jpg --shine  # a comment\n```",
        "`--shine`",
        "`make polish`",
        "`python scripts/polish.py --data DATA`",
        "`fw.polish`",
        "`fw.restore(photo, shine=True)`",
        "`fairweather.polish`",
        "`fairweather.data.add_polish`",
        "`fairweather.data.degradations.rain.polish`",
        "```python\nimport fairweather as fw\nfw.polish(1)\n```",
        "```python\nimport fairweather.models\nfairweather.models.polish(1)\n```",
        "```python\nfrom fairweather.data import add_polish\n```",
        "```python\nfrom fairweather.polish import add\n```",
        "`polish_photo()`",
        "`polish()`",
        "`Polisher`",
        "`PhotoPolisher(photo)`",
        "`polish_px: 3`",
        "`data.polish_px`",
        "`src/fairweather/polish.py`",
        "`docs/polish/*.json`",
        "`models/polish.py`",
        "`polish.py`",
        "[polish](polish.md)",
        "[polish](recipes.md#how-to-polish)",
    ],
)
def test_what_does_not_exist_is_found(text: str) -> None:
    assert len(faults(text, "docs/made_up.md")) == 1


def test_what_exists_is_no_fault() -> None:
    text = """
    `fairweather restore photo.jpg --task haze`, `fairweather models list|info`, `fairweather train`
    `fw.Restorer("rain")` `fairweather.keras` `fairweather.data.degrade_pixels` `make test`
    `create_model(…, init="official")` `Restorer` `ema_decay: 0.99` `torch.export.load(…).module()`
    `src/fairweather/models/ast.py` `models/ast.py` `docs/*.md` `DATA/rain` `photo.jpg`
    `--overwrite` [all](recipes.md), [a part](recipes.md#changing-a-value), [elsewhere](https://example.org)
    """
    assert faults(text, "docs/made_up.md") == []


def faults(text: str, page: str) -> list[str]:
    """What a page quotes that does not exist, a line for each."""
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    found: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        found += faults_of_link(target, page)
    for language, block in blocks:
        if language == "python":
            found += faults_of_python(block)
        else:
            found += [fault for line in block.splitlines() for fault in faults_of_line(line)]
    for span in re.findall(r"`([^`\n]+)`", prose):
        found += [*faults_of_line(span), *faults_of_name(span)]
    return list(dict.fromkeys(found))


# Commands


def faults_of_line(line: str) -> Iterator[str]:
    """What is wrong with the files that a line names, and with the command that it calls."""
    line = re.split(r" #|[>|] |&& ", line + " ")[0]
    for word in re.findall(r"[\w.*/-]+", line):
        if word.startswith(FOLDERS) and not any(ROOT.glob(word.rstrip("/."))):
            yield f"{word}: no such file"
    if command := re.search(r"\bfairweather ([a-z-].*)", line):
        yield from faults_of_call(shlex.split(command[1]))
    elif script := re.search(r"\b((?:scripts|benchmarks)/\w+\.py)(.*)", line):
        yield from faults_of_script(script[1], re.findall(r" --([\w-]+)", script[2]))
    elif (target := re.match(r"\s*make ([a-z]\w*)", line)) and target[1] not in make_targets():
        yield f"make {target[1]}: no such target"


def make_targets() -> set[str]:
    return set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def faults_of_call(words: list[str]) -> Iterator[str]:
    """What is wrong with a call of `fairweather`, which may leave out arguments."""
    command: Any = typer.main.get_command(app)
    said = "fairweather"
    words = [word for word in words if word not in {"…", "..."}]
    while is_group(command) and words and not words[0].startswith("-"):
        inner = [inner_command(command, name) for name in words[0].split("|")]
        said += f" {words.pop(0)}"
        if None in inner:
            yield f"{said}: no such command"
            return
        command = inner[0]
    recipe = words[0] if said == "fairweather train" and words else ""
    if re.fullmatch(r"[a-z]\w*", recipe) and not (RECIPES / f"{recipe}.yaml").is_file():
        yield f"{said} {recipe}: no such recipe"
    try:
        command.make_context("fairweather", words, resilient_parsing=is_group(command))
    except Exception as error:  # typer does not export click's exceptions
        if type(error).__name__ not in {"MissingParameter", "Exit"}:
            yield f"{said}: {error}"


def is_group(command: Any) -> bool:
    return hasattr(command, "get_command")


def inner_command(group: Any, name: str) -> Any:
    return group.get_command(group.make_context("", [], resilient_parsing=True), name)


def faults_of_script(script: str, options: list[str]) -> Iterator[str]:
    """The options that a script has neither as a string nor as a parameter."""
    code = (ROOT / script).read_text("utf-8") if (ROOT / script).is_file() else None
    for option in options if code is not None else []:
        if not re.search(rf"--{option}\b|\b{option.replace('-', '_')}\b", code or ""):
            yield f"{script} --{option}: no such option"


@functools.cache
def known_options() -> set[str]:
    """The options of every command of `fairweather`."""

    def walk(command: Any) -> Iterator[str]:
        for parameter in command.params:
            yield from (*parameter.opts, *parameter.secondary_opts)
        if is_group(command):
            context = command.make_context("", [], resilient_parsing=True)
            for name in command.list_commands(context):
                yield from walk(command.get_command(context, name))

    return set(walk(typer.main.get_command(app)))


# Names


def faults_of_name(span: str) -> Iterator[str]:
    """What is wrong with a quoted option, module or name; other text has no faults."""
    option = re.match(r"--\w[\w-]*", span)
    if option and option[0] not in known_options():
        yield f"{option[0]}: no such option"
    if re.fullmatch(r"(\w+/)*\w+\.py", span):
        known = span.startswith(FOLDERS) or span in NOT_OURS
        if not known and not any(any(ROOT.glob(f"{top}**/{span}")) for top in FOLDERS):
            yield f"{span}: no such file"
        return
    found = re.fullmatch(r"([A-Za-z_]\w*(?:\.\w+)*)(\(.*\)[.()\w]*|: .+|=.*)?", span)
    if not found or found[1] in NOT_OURS:
        return
    (root, *parts), rest = found[1].split("."), found[2] or ""
    if root in OTHER_LIBRARIES:
        return
    if root in ALIASES:
        yield from faults_of_attribute(ALIASES[root], parts)
        yield from faults_of_keywords(parts[0], rest)
    elif root == "fairweather":
        yield from faults_of_attribute("", parts)
    elif rest.startswith("(") or re.match(r"[A-Z]\w*[a-z]", root):
        if root not in set().union(*public_names().values()):
            yield f"{root}: not public"
        yield from faults_of_keywords(root, rest)
    else:
        snake_case = {part for part in (root, *parts) if "_" in part.strip("_")}
        yield from (f"{part}: not in the code" for part in snake_case - known_words())


def faults_of_keywords(function: str, rest: str) -> Iterator[str]:
    """The keywords in `rest`, which calls a name of the package itself, that it does not take."""
    if function in fairweather.__all__ and rest.startswith("("):
        known = inspect.signature(getattr(fairweather, function)).parameters
        for keyword in set(re.findall(r"(\w+)=", rest)) - set(known):
            yield f"fw.{function}({keyword}=…): no such parameter"


def faults_of_attribute(wing: str, parts: list[str]) -> Iterator[str]:
    """What is wrong with `parts` below a wing; "" is the package itself."""
    here = PACKAGE / wing
    for part in parts:
        if part in public_names().get(here.relative_to(PACKAGE).as_posix(), set()):
            return
        here /= part
        if not here.is_dir():
            dotted = ".".join(here.relative_to(PACKAGE.parent).parts)
            yield f"{dotted}: not public"
            return


def faults_of_python(block: str) -> Iterator[str]:
    """What is wrong with the imports from the package in a block of Python, and with its names."""
    for node in ast.walk(ast.parse(block)):
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                imported = [f"{module}.{alias.name}" for alias in names]
            case ast.Import(names=names):
                imported = [alias.name for alias in names]
            case ast.Attribute() if re.fullmatch(r"[\w.]+", ast.unparse(node)):
                imported = [ast.unparse(node)]
            case _:
                imported = []
        for root, *parts in (name.split(".") for name in imported):
            if root == "fairweather" or root in ALIASES:
                yield from faults_of_attribute(ALIASES.get(root, ""), parts)


@functools.cache
def public_names() -> dict[str, set[str]]:
    """What the package itself (".") and every wing show."""
    errors = {name for name in vars(fairweather.errors) if name.endswith("Error")}
    package = {".": {*fairweather.__all__, "errors"}, "errors": errors}
    return {**package, **imports.public_names()}


@functools.cache
def known_words() -> set[str]:
    """Every word of the code and of the recipes, and the recipes' names."""
    recipes = list(RECIPES.glob("*.yaml"))
    code = [file for top in CODE for file in (ROOT / top).rglob("*.py")]
    text = "\n".join(file.read_text("utf-8") for file in (*recipes, *code, CONFTEST))
    return {*re.findall(r"\w+", text), *(recipe.stem for recipe in recipes)}


# Links


def faults_of_link(target: str, page: str) -> Iterator[str]:
    """What is wrong with a link from a page to a file, or to a heading of one."""
    file, _, heading = target.partition("#")
    if "://" in target:
        return
    to = (ROOT / page).parent / file if file else ROOT / page
    if page.startswith("docs/") and made_for_the_site(to):
        return
    if not to.exists():
        yield f"({target}): no such file"
    elif heading and heading not in anchors(to.read_text("utf-8")):
        yield f"({target}): no such heading"


def made_for_the_site(to: Path) -> bool:
    """Whether a page is written from the code when the site is built; test_site.py checks those."""
    place = os.path.relpath(to, ROOT / "docs")
    return place in (ROOT / "mkdocs.yml").read_text("utf-8") and place.startswith("reference/")


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
