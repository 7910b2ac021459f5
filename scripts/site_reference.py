"""The pages of the site's reference, written from the code: what the code says, they say."""

import ast
import dataclasses
import inspect
import json
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from fairweather.cli import app
from fairweather.data import describe_layout, list_layouts
from fairweather.evaluation import PROTOCOLS, describe_protocol
from fairweather.models import PRESETS, ASTConfig, ASTv2Config, list_models, list_weights
from fairweather.training import list_recipes, load_recipe, recipe_schema

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "fairweather"

# What users call, in the order in which the page shows it; the first is the package itself.
WINGS = {
    "fairweather": "Restore photographs, and load and create models.",
    "fairweather.restoration": "Restore images, files, folders and clips.",
    "fairweather.imaging": "Read and write photographs and clips.",
    "fairweather.models": "Networks, weights and their files.",
    "fairweather.data": "Pairs, layouts and synthetic degradations.",
    "fairweather.training": "Recipes and training.",
    "fairweather.evaluation": "Measure restored images.",
    "fairweather.export": "Write models for other programs.",
    "fairweather.keras": "The same network for Keras.",
    "fairweather.serving": "Page, service and bulk work.",
}


def reference_pages() -> Iterator[tuple[str, str]]:
    """Yield the path below docs/ and the Markdown of each page."""
    yield "reference/cli.md", command_page()
    yield "reference/recipes.md", recipes_page()
    yield "reference/recipe-keys.md", recipe_keys_page()
    yield "reference/layouts.md", layouts_page()
    yield "reference/protocols.md", protocols_page()
    yield "reference/architectures.md", architectures_page()
    yield "weights/index.md", weights_page()
    yield from python_pages()


# The command line


def command_page() -> str:
    """Return the page of all commands and their options."""
    command = typer.main.get_command(app)
    parts = [
        "# Command line",
        "Written from the commands themselves; `--help` of each says the same."
        " [Errors](../errors.md) explains the exit status.",
        *command_sections(command, "fairweather"),
    ]
    return "\n\n".join(parts) + "\n"


def command_sections(command: Any, path: str) -> Iterator[str]:
    """Yield the sections of a command and of those below it."""
    context = command.make_context(path, [], resilient_parsing=True)
    if path != "fairweather" and not hasattr(command, "list_commands"):
        usage = " ".join([path, "[OPTIONS]", *arguments_of(command)])
        yield f"## {path}"
        yield paragraphs(command.help or "")
        yield f"```text\n{usage}\n```"
        rows = [row for parameter in command.params if (row := parameter_row(parameter))]
        yield "| | | default |\n|---|---|---|\n" + "\n".join(rows)
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            yield from command_sections(command.get_command(context, name), f"{path} {name}")


def arguments_of(command: Any) -> Iterator[str]:
    """Yield how the arguments of a command are written."""
    for parameter in command.params:
        if not parameter.opts[0].startswith("-"):
            name = parameter.metavar or parameter.name.upper()
            yield name if parameter.required or parameter.metavar else f"[{name}]"


def parameter_row(parameter: Any) -> str:
    """Return the row of an option or argument; nothing for those that are hidden."""
    if parameter.hidden or parameter.name == "help":
        return ""
    names = ", ".join(f"`{name}`" for name in sorted(parameter.opts, key=len))
    choices = typing.get_args(parameter.type_descriptor.annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        names += f": {', '.join(choices)}"
    default = parameter.show_default
    if not isinstance(default, str):
        plain = parameter.default
        empty = plain is None or plain == () or isinstance(plain, bool) or callable(plain)
        default = "" if empty or parameter.required else f"`{plain}`"
    return f"| {names} | {cell(parameter.help or '')} | {cell(default)} |"


# Recipes


def recipes_page() -> str:
    """Return the page of the recipes that come with the package, as they are on disk."""
    parts = [
        "# Recipes",
        "Every experiment that comes with fairweather, as YAML. `fairweather train NAME` runs one;"
        " [the guide](../recipes.md) explains how to change it and how to write your own, and"
        " [Keys of a recipe](recipe-keys.md) lists what it may hold.",
        "| recipe | task | network | published figure |\n|---|---|---|---|",
    ]
    sections = []
    for name in list_recipes():
        recipe = load_recipe(name)
        figure = recipe.published
        told = f"{figure.psnr_db:g} dB on {figure.test_set}, {figure.model}" if figure else ""
        row = f"| [{name}](#{name}) | {recipe.task} | `{recipe.preset}` | {cell(told)} |"
        parts[-1] += f"\n{row}"
        text = (PACKAGE / "training" / "recipes" / f"{name}.yaml").read_text("utf-8")
        sections += [f"## {name}", recipe.description.strip(), f"```yaml\n{text.strip()}\n```"]
    return "\n\n".join([*parts, *sections]) + "\n"


def recipe_keys_page() -> str:
    """Return the page of what a recipe may hold, from its JSON Schema."""
    schema = recipe_schema()
    parts = [
        "# Keys of a recipe",
        "From the JSON Schema that `fairweather train --schema` prints. Unknown keys are errors."
        " [The guide](../recipes.md) shows them at work.",
        *schema_section("Recipe", schema),
    ]
    for name, part in schema["$defs"].items():
        if part.get("properties"):
            parts += schema_section(name, part)
    return "\n\n".join(parts) + "\n"


def schema_section(name: str, part: Mapping[str, Any]) -> list[str]:
    """Return the heading, the text and the table of one object of the schema."""
    rows = [
        f"| `{key}` | {cell(type_text(value))} | {cell(default_text(key, value, part))} |"
        f" {cell(value.get('description', ''))} |"
        for key, value in part["properties"].items()
    ]
    table = "| key | type | default | |\n|---|---|---|---|\n" + "\n".join(rows)
    return [f"## {name}", paragraphs(part.get("description", "")), table]


def type_text(value: Mapping[str, Any]) -> str:
    """Return a type of the schema in words, with a link to the objects that it refers to."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in value:
        return f"`{json.dumps(value['const'])}`"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "anyOf" in value or "oneOf" in value:
        choices = value.get("anyOf") or value["oneOf"]
        return " or ".join(type_text(one) for one in choices if one.get("type") != "null")
    if value.get("type") == "array":
        items = value.get("items") or next(iter(value.get("prefixItems", [])), {})
        return f"list of {type_text(items)}"
    if value.get("type") == "object":
        return "mapping"
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {value[key]}" for key, sign in limits.items() if key in value]
    return ", ".join([str(value.get("type", "anything")), *bounds])


def default_text(key: str, value: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    """Return what holds where a key is left out."""
    if key in part.get("required", ()):
        return "required"
    default = value.get("default")
    told = default is not None and default != [] and not isinstance(default, dict)
    return f"`{json.dumps(default)}`" if told else ""


# Data and figures


def layouts_page() -> str:
    """Return the page of the layouts of public data sets."""
    parts = [
        "# Layouts of data sets",
        "How public data sets have to lie on disk, as `fairweather data layouts NAME` prints it."
        " Recipes, `fairweather data check` and `fairweather evaluate` read them. fairweather does"
        " not download data sets; their licences are their authors'.",
    ]
    for name in list_layouts():
        about, _, tree = describe_layout(name).partition("\n")
        parts += [f"## {name}", f"{about.partition(': ')[2]}.", f"```text\n{tree}\n```"]
    return "\n\n".join(parts) + "\n"


def protocols_page() -> str:
    """Return the page of the protocols under which figures are computed."""
    rows = [
        f"| [{name}](#{name}) | {cell(one.title)} | {one.colour.replace('_', ' ')} |"
        f" {'8 bits' if one.rounded else 'no'} | {cell(one.ssim.window)} | `{one.inference}` |"
        for name, one in PROTOCOLS.items()
    ]
    head = "| protocol | benchmark | colour | rounded | window of SSIM | inference |"
    parts = [
        "# Protocols",
        "What each published figure depends on. `fairweather evaluate --protocol NAME` follows one;"
        " figures of different protocols are not comparable.",
        "\n".join([head, "|---|---|---|---|---|---|", *rows]),
    ]
    for name, protocol in PROTOCOLS.items():
        told = describe_protocol(protocol).partition("). ")[2]
        about, _, sources = told.partition(" Sources: ")
        listed = "\n".join(f"- {source.rstrip('.')}" for source in sources.split("; "))
        parts += [f"## {name}", f"{protocol.title}.", about, f"Sources:\n\n{listed}"]
    return "\n\n".join(parts) + "\n"


# Networks


def architectures_page() -> str:
    """Return the page of the presets and of the fields of a configuration."""
    models = {entry.name: entry for entry in list_models() if entry.kind == "preset"}
    rows = [
        f"| `{name}` | {models[name].parameters / 1e6:.2f} M | {models[name].gmacs:.1f} |"
        for name in PRESETS
    ]
    parts = [
        "# Architectures",
        "`fw.create_model` takes the name of a preset or a configuration; a recipe changes single"
        " fields with `architecture`.",
        "| preset | parameters | GMACs at 256 × 256 |\n|---|---|---|\n" + "\n".join(rows),
    ]
    for config in (ASTConfig, ASTv2Config):
        about = inspect.getdoc(config) or ""
        text, _, attributes = about.partition("Attributes:")
        told = dict(re.findall(r"^ {4}(\w+): ((?:.|\n {8})+)", attributes, re.MULTILINE))
        lines = [
            f"| `{field.name}` | {cell(field_default(field))} |"
            f" {cell(told.get(field.name, '')).rstrip('.')} |"
            for field in dataclasses.fields(config)
        ]
        table = "| field | default | |\n|---|---|---|\n" + "\n".join(lines)
        parts += [f"## {config.__name__}", paragraphs(text), table]
    return "\n\n".join(parts) + "\n"


def field_default(field: dataclasses.Field[Any]) -> str:
    """Return the default of a field of a dataclass."""
    return "" if field.default is dataclasses.MISSING else f"`{field.default!r}`"


def weights_page() -> str:
    """Return the page that leads to the cards of the bundled weights."""
    entries = {entry.name: entry for entry in list_models() if entry.kind == "weights"}
    rows = [
        f"| [{name}](../../src/fairweather/weights/{name}.md) | {cell(entries[name].description)} |"
        f" {entries[name].parameters / 1e6:.2f} M | {entries[name].gmacs:.1f} |"
        for name in list_weights()
    ]
    head = "| weights | network | parameters | GMACs at 256 × 256 |\n|---|---|---|---|"
    about = (
        "Each card says what the weights were trained on, what they reach and where they fail."
        " [Choose weights](../guides/weights.md) helps to choose."
    )
    return "\n\n".join(["# Weights", about, "\n".join([head, *rows])]) + "\n"


# Python


def python_pages() -> Iterator[tuple[str, str]]:
    """Yield a page for each wing of the package, and the one that leads to them."""
    rows = [f"| [{wing}]({page_of(wing)}) | {about} |" for wing, about in WINGS.items()]
    listed = "| module | what it is for |\n|---|---|\n" + "\n".join(rows)
    about = (
        "The names that each module shows; what is not listed here may change without notice."
        " Images are RGB, in [0, 1] where they are floats, and sizes are (height, width)."
    )
    yield "reference/python/index.md", f"# Python\n\n{about}\n\n{listed}\n"
    for wing, about in WINGS.items():
        names = [name for name in public_names(wing) if not name.isupper()]
        parts = [f"# {wing}", about, *(f"::: {wing}.{name}" for name in names)]
        yield f"reference/python/{page_of(wing)}", "\n\n".join(parts) + "\n"


def page_of(wing: str) -> str:
    """Return the file name of the page of a wing."""
    return f"{wing}.md"


def public_names(wing: str) -> list[str]:
    """Return what a wing shows, from its stub or its `__all__`."""
    folder = PACKAGE.joinpath(*wing.split(".")[1:])
    stub = folder / "__init__.pyi"
    if stub.exists():
        return re.findall(r"^from \S+ import \w+ as (\w+)", stub.read_text("utf-8"), re.MULTILINE)
    tree = ast.parse((folder / "__init__.py").read_text("utf-8"))
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    return names


# Text


def paragraphs(text: str) -> str:
    """Return a docstring with its paragraphs kept, and the lines of each joined."""
    parts = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(" ".join(part.split()) for part in parts)


def cell(text: str) -> str:
    """Return text that fits into one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
