"""Rename parts of the dotted names in a state dict."""

import re


def replace_prefix(name: str, old: str, new: str) -> str:
    """Replace a dotted prefix, carrying over the numbers where the patterns have {}."""
    pattern = re.escape(old).replace(r"\{\}", r"(\d+)")
    found = re.match(rf"{pattern}(?=\.)", name)
    return new.format(*found.groups()) + name[found.end() :] if found else name


def replace_part(name: str, old: str, new: str) -> str:
    """Replace dotted parts in the middle or at the end of a name."""
    return re.sub(rf"(?<=\.){re.escape(old)}(?=\.|$)", new, name, count=1)
