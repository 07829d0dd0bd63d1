"""Count sentences that are too long, and idioms that readers stumble over, in what users read.

`python -m documents.prose` prints file, line, what is wrong and the sentence; `--record` lowers the counts in
`tests/prose.json`, which `tests/laws/test_prose.py` lets nobody raise.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from documents.pages import COMMAND_LINE, find_pages
from documents.records import ROOT

MOST_WORDS = 28
RECORD = Path("tests/prose.json")

BANNED: Mapping[str, str] = {
    # inversions and idioms that are not standard English
    r"\banew\b": "again",
    r"\bours\b": "name the network",
    r"\bupon\b": "on",
    r"\blaid to\b": "attributed to",
    r"\bthe former\b(?= (?:one|model|generator)|[.,;)])": "name it",
    r"\bfrom (?:a|the) [a-z]+ of [\d.]+ (?:per cent |% )?on\b": "at least",
    r"\bfrom (?:seed |seeds )?[\d.]+ on\b": "at least",
    r"\b(?:that|this) is what\b": "say it directly",
    r"\bwho(?:ever)? (?:wants|needs|has|starts)\b[^.]*\b(?:takes|gains|asks)\b": "to get ..., use ...",
    r"\bat hand\b": "available",
    r"\bstands? (?:here|there|on the card|beside)\b": "is, are",
    r"\bhung on\b": "depended on",
    r"\bof (?:then|before|that time|that day)\b": "give the date in the lab notes",
    r"\bturns? (?:that|it) round\b": "reverses",
    r"\bmend(?:s|ed|ing)?\b": "correct, change",
    r"\bmuch less sure\b|\bless sure\b|\bsure(?:st|ness|r)\b": "confidence",
    # history, which belongs to the lab notes
    r"\bas it (?:was then|was|is now|stands)\b": "say what is",
    r"\bat first\b": "say what is",
    r"\bsince then\b": "say what is",
    r"\bfor a while\b": "say what is",
    r"\b(?:was|were) tried\b": "lab notes",
    r"\b(?:was|were) taken (?:back|out again)\b": "lab notes",
    r"\b(?:model|one|generator|shipped) before\b(?! (?:and|the|it|you))": "lab notes",
    r"\b(?:not (?:used )?any more|ago)\b": "say what is",
    # private words, left column of the table of names
    r"\bislands?\b": "connected components",
    r"\bgrown\b": "simulated",
    r"\bluck\b": "random generator",
    r"\b(?:procedural|simulated|other|few|same|fresh|real|these|those|eight|several) heads\b": "anatomies",
    r"\bfamiliarity\b": "out-of-distribution check",
    r"\bdistractors?\b": "confounders",
    r"\brosters?\b": "data split",
    r"\b(?:bouts?|contenders?|standings)\b": "fold run, model, leaderboard",
    r"\bpeers?\b": "baselines, other networks",
    r"\b(?:weav(?:e|es|ing)|woven|bath(?:e|es|ing)|soak(?:s|ed|ing)?)\b": "texture, add, infiltrate",
    r"\brecolou?r": "augment intensity",
    r"\bfrozen network": "fused network",
    r"\blean(?:s|ing|ed)?\b": "decision threshold",
    r"\b(?:blend(?:s|ed|ing)?)\b": "weight interpolation",
}
"""Patterns of what style.md and the table of names ban, each with what to write instead."""

_ABBREVIATIONS = re.compile(r"\b(?:e\.g|i\.e|et al|vs|cf|fig|eq|approx|incl|resp)\.(?=\s)", re.IGNORECASE)
_FENCE = re.compile(r"^\s*(?:>\s*)?(```+|~~~+)")
_BOUNDARY = re.compile(r"^\s*(?:#|\||<!--|-->|!!!|\?\?\?|===|---+\s*$|--8<--|\[[^\]]+\]:\s|!\[[^\]]*\]\([^)]*\)\s*$)")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+[.)])\s+(?:\[[ x]\]\s+)?")


@dataclass(frozen=True)
class Fault:
    """A sentence that is too long (what is the number of words), or an idiom in it (what to write instead)."""

    file: str
    line: int
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}: {self.text}"


def prose_files(root: Path = ROOT) -> list[Path]:
    """What users read, relative to the root: neither lab notes nor the generated page of the command line."""
    pages = [Path("CONTRIBUTING.md"), *find_pages(root)]
    return [page for page in pages if page != COMMAND_LINE]


def find_paragraphs(text: str) -> Iterator[tuple[int, str]]:
    r"""Number of the first line and words of each paragraph or item; no code, table, heading or comment.

    >>> list(find_paragraphs("# Title\n\nOne\nline.\n\n- an item\n| a | b |\n"))
    [(3, 'One line.'), (6, 'an item')]
    """
    start, lines, fence, skipped = 0, list[str](), "", False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        opened = _FENCE.match(line)
        if fence:
            fence = "" if opened and opened[1].startswith(fence) else fence
            continue
        if line.startswith((":::", "- Source: `", "- Sources: `")):  # an object of mkdocstrings; the files of a table
            skipped = True
        elif line and not line.startswith(" "):
            skipped = False
        ends = opened or skipped or not line.strip() or _BOUNDARY.match(line)
        if lines and (ends or _ITEM.match(line)):
            yield start, " ".join(lines)
            lines = []
        fence = opened[1] if opened else ""
        if not ends:
            start = start if lines else number
            lines.append(re.sub(r"^\s*>\s?", "", _ITEM.sub("", line)).strip())


def to_words(paragraph: str) -> str:
    """A paragraph as it is read aloud: inline code is one word, a link is its text, a picture is nothing.

    >>> to_words("See **[the page](x.md)** of `train --from`.")
    'See the page of CODE.'
    """
    text = re.sub(r"(`+)(?:.*?[^`])??\1(?!`)", "CODE", paragraph)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)(?:\{[^}]*\})?", "", text)
    text = re.sub(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", text)
    text = re.sub(r"<!--.*?-->|</?[a-zA-Z][^>]*>|https?://\S+", " ", text)
    return re.sub(r"\*\*|__|(?<!\w)[*_](?=\w)|(?<=[\w.,:])[*_](?!\w)", "", text).strip()


def split_sentences(text: str) -> list[str]:
    """Sentences; dots of abbreviations and of decimals end none.

    >>> split_sentences("It is 0.5 (Hu et al. 2020). That is good!")
    ['It is 0.5 (Hu et al. 2020).', 'That is good!']
    """
    kept = _ABBREVIATIONS.sub(lambda found: found[0][:-1] + "\0", text)
    parts = re.split(r"(?<=[.!?])[\"')\]]*\s+|(?<=[.!?][\"')\]])\s+", kept)
    return [part.replace("\0", ".") for part in parts if part]


def count_words(sentence: str) -> int:
    """Tokens with a letter or a digit."""
    return sum(any(letter.isalnum() for letter in token) for token in sentence.split())


def find_faults(text: str, file: str) -> Iterator[Fault]:
    """Every long sentence and every banned idiom of a page."""
    for line, paragraph in find_paragraphs(text):
        for sentence in split_sentences(to_words(paragraph)):
            if (words := count_words(sentence)) > MOST_WORDS:
                yield Fault(file, line, f"{words} words", sentence)
            for pattern, instead in BANNED.items():
                for found in re.finditer(pattern, sentence, re.IGNORECASE):
                    yield Fault(file, line, f"{found[0]!r} (write: {instead})", sentence)


def find_all_faults(root: Path = ROOT) -> list[Fault]:
    """Those of all files."""
    files = prose_files(root)
    return [fault for file in files for fault in find_faults((root / file).read_text("utf-8"), file.as_posix())]


def count_faults(faults: Sequence[Fault]) -> dict[str, int]:
    """How many each file has; those without any are left out."""
    files = [fault.file for fault in faults]
    return {file: files.count(file) for file in sorted(set(files))}


def read_record(root: Path = ROOT) -> dict[str, int]:
    """The counts that no file may exceed."""
    found: dict[str, int] = json.loads((root / RECORD).read_text(encoding="utf-8"))
    return found


def lower_record(record: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, int]:
    """The record with what has fallen.

    >>> lower_record({"a": 3, "b": 2, "gone": 1}, {"a": 1, "b": 4, "new": 7})
    {'a': 1, 'b': 2}
    """
    return {file: min(most, counts[file]) for file, most in record.items() if file in counts}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="lower the counts of the record to those of today")
    faults = find_all_faults()
    if parser.parse_args(argv).record:
        lowered = lower_record(read_record(), count_faults(faults))
        (ROOT / RECORD).write_text(json.dumps(lowered, indent=2) + "\n", encoding="utf-8", newline="\n")
    sys.stdout.write("".join(f"{fault}\n" for fault in faults))


if __name__ == "__main__":
    main()
