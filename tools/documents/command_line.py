"""The page of the command line, made from the program itself: what `--help` says, for all verbs."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cyclopts import App
from rich.console import Console, RenderableType

from brainsegnet.cli.app import app

HEAD = """\
# Command line

Every verb of `brainsegnet` with its options, generated from the program.

`brainsegnet VERB --help` shows the same.
`brainsegnet --install-completion` installs the completion of these commands for your shell.

"""


@dataclass
class HelpPage:
    """Receives what cyclopts would print as help of one verb."""

    usage: str = ""
    description: str = ""
    entries: list[Any] = field(default_factory=list)

    def __call__(self, console: Console, options: object, panel: Any) -> None:  # noqa: ANN401
        """Keep the entries of a panel of arguments or options."""
        self.entries += panel.entries if panel.format == "parameter" else []

    def render_usage(self, console: Console, options: object, usage: RenderableType) -> None:
        """Keep the usage."""
        self.usage = to_text(usage)

    def render_description(self, console: Console, options: object, description: RenderableType) -> None:
        """Keep the summary with its examples."""
        self.description = to_text(description)


def to_text(renderable: RenderableType | None) -> str:
    """What rich would print, without colours, a paragraph a line."""
    if renderable is None:
        return ""
    console = Console(width=5000, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.strip() for line in captured.get().splitlines()).strip()


def find_verbs(group: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every verb, those of groups too, in the order in which they were registered."""
    for name in group:
        if name.startswith("-"):
            continue
        if group[name].default_command is None:
            yield from find_verbs(group[name], (*path, name))
        else:
            yield *path, name


def read_help(verb: tuple[str, ...]) -> HelpPage:
    """What `--help` says of a verb."""
    page, before = HelpPage(), app.help_formatter
    app.help_formatter = page
    try:
        app.help_print(verb)
    finally:
        app.help_formatter = before
    return page


def describe_commands() -> str:
    """The page."""
    return HEAD + "\n".join(describe_verb(verb) for verb in sorted(find_verbs(app), key=_verb_order))


def _verb_order(verb: tuple[str, ...]) -> tuple[int, int]:
    """As `brainsegnet --help` lists them, and the verbs of a group as they were registered."""
    return len(verb) > 1, list(find_verbs(app)).index(verb)


def describe_verb(verb: tuple[str, ...]) -> str:
    """A section: summary, usage, examples, and a list of arguments and options."""
    page = read_help(verb)
    paragraphs = [part for part in re.split(r"\n\s*\n", page.description) if part]
    examples = [part.removeprefix("Example: ") for part in paragraphs if part.startswith("Example: ")]
    words = [_wrap(part.replace("\n", " ")) for part in paragraphs if not part.startswith("Example: ")]
    entries = [entry for entry in page.entries if not {"--help", "--version"} & set(entry.names)]
    parts = [
        f"## {' '.join(verb)}",
        *words,
        _wrap(f"Usage: `{page.usage.removeprefix('Usage: ')}`"),
        "Example:" if len(examples) == 1 else "Examples:",
        "```sh\n" + "\n".join(examples) + "\n```",
        "\n".join(describe_entry(entry) for entry in entries),
    ]
    return "\n\n".join(parts) + "\n"


def describe_entry(entry: Any) -> str:  # noqa: ANN401
    """An argument or option as an item of a list: name, what it takes, help, choices, default."""
    value = "" if entry.positional_label else (entry.metavar or "")
    names = ", ".join(f"`{name}{f' {value}' if value else ''}`" for name in entry.display_labels)
    text = f"{names}{' (required)' if entry.required else ''}: {to_text(entry.description).replace(chr(10), ' ')}"
    if entry.choices:
        text += f" Choices: {', '.join(f'`{choice}`' for choice in entry.choices)}."
    if entry.default:
        text += f" Default: `{entry.default}`."
    return _wrap(f"- {re.sub(r' {2,}', ' ', text)}", "  ")


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
