"""Tables of the fields of a task file and of a model card, made from their classes and docstrings.

A page holds a pair of markers, `<!-- fields: Task -->` and `<!-- /fields -->`. The table goes between them.
"""

import datetime
import inspect
import json
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from brainsegnet.model import card
from brainsegnet.task import Platform, Task

ROOT = Path(__file__).parents[2]
REFERENCE = Path("docs/reference")
PAGES = (REFERENCE / "task-file.md", REFERENCE / "model-card.md")
LINKS: Mapping[type[BaseModel], tuple[str, str]] = {
    Task: ("a task", "task-file.md"),
    Platform: ("a platform", "task-file.md#platform"),
    card.Card: ("a card", "#card"),
    card.Input: ("an input", "#input"),
    card.Architecture: ("a network", "#network"),
    card.TrainingNote: ("a training", "#training"),
    card.Data: ("data", "#data"),
    card.Parent: ("a parent", "#parent"),
    card.Simulated: ("simulated cases", "#simulated-cases"),
    card.Comparison: ("comparisons", "#comparison"),
    card.WeightsNote: ("weights", "#weights"),
    card.ExportNote: ("exports", "#export"),
    card.IntervalNote: ("intervals", "#interval"),
    card.SubsetInterval: ("intervals", "#interval-with-fewer-sequences"),
    card.CalibrationNote: ("calibrations", "#calibration"),
    card.CalibrationBin: ("bins", "#bin"),
    card.ComponentFilter: ("components", "#components"),
    card.PresenceRule: ("a rule of presence", "#presence"),
    card.Profile: ("a profile", "#profile"),
}
"""Class to its name in a cell, and where its table is."""
CLASSES = {one.__name__: one for one in LINKS}
PLAIN = {str: "text", int: "integer", float: "number", bool: "true or false", datetime.date: "date", Any: "any value"}
_MARKED = re.compile(r"(<!-- fields: (\w+) -->\n)(.*?)(<!-- /fields -->)", re.DOTALL)


def fields_pages(root: Path = ROOT) -> dict[Path, str]:
    """The pages of the task file and the model card with their tables filled in, by path from the root.

    Raises:
        KeyError: a page names an unknown class, or a field has no line in the docstring of its class.
    """
    return {page: fill((root / page).read_text(encoding="utf-8")) for page in PAGES if (root / page).exists()}


def fill(text: str) -> str:
    """A page with a table between each pair of markers."""
    return _MARKED.sub(lambda found: f"{found[1]}{fields_table(CLASSES[found[2]])}{found[4]}", text)


def fields_table(model: type[BaseModel]) -> str:
    """A Markdown table with a row for each field of a class: name, type, default and meaning."""
    meanings = read_attributes(model)
    rows = []
    for name, field in model.model_fields.items():
        kind, default = describe_type(field.annotation, LINKS), describe_default(field)
        cell = kind if default == f", default {kind}" else kind + default
        meaning = re.sub(r"\bNone\b", "null", meanings[name])
        rows.append(f"| `{name}` | {cell} | {meaning} |")
    return "\n".join(["", "| Field | Type | Meaning |", "| --- | --- | --- |", *rows, "", ""])


def read_attributes(model: type) -> dict[str, str]:
    """Field to the text of its line under `Attributes:` in the docstring of a class.

    Examples:
        >>> read_attributes(Platform)["suffix"]
        'Format of the files.'
    """
    section = re.split(r"^(\w+):$", inspect.getdoc(model) or "", flags=re.MULTILINE)
    text = section[section.index("Attributes") + 1]
    lines = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in lines}


def describe_type(annotation: Any, links: Mapping[type[BaseModel], tuple[str, str]]) -> str:  # noqa: ANN401
    """A type in words, as YAML and JSON have it.

    Examples:
        >>> describe_type(tuple[int, int, int], {}), describe_type(Mapping[str, tuple[str, ...]], {})
        ('list of 3 integers', 'map of text to list of text')
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation in PLAIN:
        return PLAIN[annotation]
    if isinstance(annotation, type) and annotation in links:
        return f"[{links[annotation][0]}]({links[annotation][1]})"
    if origin is Annotated:
        return describe_type(parts[0], links)
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if part is type(None) else describe_type(part, links) for part in parts)
    if origin is Mapping:
        return f"map of {describe_type(parts[0], links)} to {describe_type(parts[1], links)}"
    return _describe_list(parts, links)


def _describe_list(parts: Sequence[Any], links: Mapping[type[BaseModel], tuple[str, str]]) -> str:
    """A tuple as a list, of any length or of a given one."""
    inner = describe_type(parts[0], links)
    plural = f"{inner}s" if inner in {"integer", "number"} else inner
    return f"list of {plural}" if parts[-1] is Ellipsis else f"list of {len(parts)} {plural}"


def describe_default(field: FieldInfo) -> str:
    """The end of a cell: `, required`, or the default; nothing for a part with a table of its own."""
    if field.is_required():
        return ", required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return ""
    if default is None or isinstance(default, datetime.date):
        return f", default {'null' if default is None else 'today'}"
    if default in ("", {}, ()):
        return ", default empty"
    return f", default `{default if isinstance(default, str) else json.dumps(default)}`"
