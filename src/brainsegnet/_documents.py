"""Read JSON, YAML and tables up to a size and a depth, and without references from one part to another."""

import json
from pathlib import Path
from typing import Any

import yaml


class UnreadableText(ValueError):
    """A text is too large, too deep or of the wrong kind. The message is the end of a sentence that names the file."""


MAX_BYTES = 64_000_000
"""Largest size of a JSON file or table. Scores of ten thousand cases take a tenth."""
MAX_YAML_BYTES = 8_000_000
MAX_DEPTH = 64
"""Largest depth of nested lists and mappings. The files of this package have five levels."""


def read_text(path: Path, encoding: str = "utf-8", max_bytes: int = MAX_BYTES) -> str:
    """Read the text of a file.

    Raises:
        UnreadableText: it is too large or not a regular file.
        UnicodeDecodeError: it has another encoding.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise UnreadableText("is no regular file")
    if (size := path.stat().st_size) > max_bytes:
        raise UnreadableText(f"holds {size / 1e6:.0f} MB, and {max_bytes / 1e6:.0f} MB are read at most")
    return path.read_text(encoding=encoding)


def load_json(text: str) -> Any:  # noqa: ANN401
    """The content of a JSON text.

    Raises:
        ValueError: it is not JSON, or nested too deeply.

    Examples:
        >>> load_json('{"a": [1, 2]}')
        {'a': [1, 2]}
        >>> load_json(100 * "[" + 100 * "]")
        Traceback (most recent call last):
        brainsegnet._documents.UnreadableText: is nested more than 64 levels deep
    """
    try:
        content = json.loads(text)
        if "\\ud" in text.lower():
            _check_characters(json.dumps(content, ensure_ascii=False))
    except RecursionError as error:
        raise UnreadableText(_TOO_DEEP) from error
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return content
    raise UnreadableText(_TOO_DEEP)


def load_yaml(text: str) -> Any:  # noqa: ANN401
    """The content of a YAML text, in plain types.

    Raises:
        UnreadableText: it is too large or too deep, has references, or holds an impossible value such as month 13.
        yaml.YAMLError: it is not YAML.
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise error if isinstance(error, UnreadableText) else UnreadableText(f"is not YAML: {error}") from error


def compose_yaml(text: str) -> yaml.Node | None:
    """The nodes of a YAML text, which know their lines; None if it is empty. Errors are those of `load_yaml`."""
    return yaml.compose(text, Loader=_PlainLoader)


def _parts(whole: object) -> list[Any]:
    """Lists and mappings in a list or a mapping."""
    inside = whole.values() if isinstance(whole, dict) else whole if isinstance(whole, list) else ()
    return [part for part in inside if isinstance(part, (dict, list))]


def _check_characters(text: str) -> None:
    """Check that no escape stands for half a character (a lone surrogate), which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnreadableText(f"holds half a character, {text[error.start]!a}; mend it") from error


_TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep"


class _PlainLoader(yaml.SafeLoader):
    """Limits the depth, because YAML is read by recursion, and refuses references, which can stand for billions."""

    def __init__(self, stream: str) -> None:
        if len(stream) > MAX_YAML_BYTES:
            raise UnreadableText(f"holds more than {MAX_YAML_BYTES / 1e6:.0f} MB of YAML; write a .csv table")
        super().__init__(stream)
        self.depth = 0

    def compose_scalar_node(self, anchor: dict[Any, yaml.Node]) -> yaml.ScalarNode:
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        _check_characters(node.value)
        return node

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise UnreadableText("has references (&, *), which are not read; write the values out")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableText(_TOO_DEEP)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1
