"""Files that hold results: `benchmarks/results/*.json` and the cards of the shipped models."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = Path("benchmarks/results")
MODELS = Path("src/brainsegnet/models")

UNDATED = {
    "ablation-120-steps": ("2026-11-25", ""),
    "ablation-200-steps": ("2026-11-24", "AMD EPYC (avx512_vnni), 2 cores"),
    "against-2-minutes": ("2026-11-24", ""),
    "against-2-minutes-seed-1": ("2026-11-25", ""),
    "against-2-minutes-seed-1-half": ("2026-11-25", ""),
    "against-2-minutes-seed-2-amx": ("2026-11-30", ""),
    "against-2-minutes-seeds": ("2026-11-30", ""),
    "against-four-sequences": ("2026-11-25", ""),
    "components-cost": ("2026-11-29", ""),
    "generator-cpu": ("2026-11-25", "AMD EPYC (avx512_vnni), 2 cores"),
    "quick-15-minutes": ("2026-11-24", "Intel Xeon (avx512_vnni), 2 cores"),
    "seams": ("2026-11-24", "AMD EPYC (avx512_vnni), 2 cores"),
    "speed-isles": ("2026-11-24", "AMD EPYC (avx512_vnni), 2 cores"),
    "speed-real": ("2026-11-24", "AMD EPYC (avx512_vnni), 2 cores"),
    "tta-cost": ("2026-11-29", ""),
    "tune-2-minutes": ("2026-11-30", "AMD EPYC (avx512_bf16), 2 cores"),
}
"""Date and processor of the files that do not state them: the commit that added the figures, and its notes."""

_UNITS = {
    "avx2": "AVX2",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 VNNI and BF16",
    "amx_bf16": "AMX",
}


@dataclass(frozen=True)
class Record:
    """A file with results.

    Attributes:
        path: Relative to the root of the repository.
        machine: Processor and cores in words; empty for a card.
    """

    path: Path
    data: Any
    date: str
    machine: str = ""

    @property
    def made(self) -> str:
        """Date and processor."""
        return ", ".join(filter(None, (self.date, self.machine)))


def describe_machine(stated: str) -> str:
    """A processor as `describe_cpu` names it, in words.

    >>> describe_machine("Intel(R) Xeon(R) Processor (amx_bf16), 2 cores, cpu")
    '2 cores of an Intel Xeon with AMX'
    """
    name = re.sub(r"\(R\)| Processor", "", stated.split(" (")[0])
    units, cores = re.search(r"\((\w+)\),", stated), re.search(r"(\d+) cores", stated)
    count = f"{cores[1]} cores of an " if cores else ""
    return f"{count}{name}{f' with {_UNITS[units[1]]}' if units else ''}"


def name_sources(records: Sequence[Record]) -> str:
    """The files, with the date and the processor of each."""
    groups: dict[str, list[str]] = {}
    for record in records:
        groups.setdefault(record.made, []).append(f"`{record.path.as_posix()}`")
    named = "; ".join(f"{', '.join(paths)} ({made})" for made, paths in groups.items())
    return f"Source{'s' if len(records) > 1 else ''}: {named}."


def _find_machine(data: Any) -> str:  # noqa: ANN401
    stated = data.get("machine", "")
    if isinstance(stated, dict):
        stated = stated["processor"]
    if not stated:
        notes = [note for note in data.get("notes", []) if note.startswith("Machine: ")]
        stated = notes[0].removeprefix("Machine: ").rstrip(".") if notes else ""
    return str(stated)


@cache
def read_result(name: str) -> Record:
    """A file of `benchmarks/results`."""
    path = RESULTS / f"{name}.json"
    data = json.loads((ROOT / path).read_text(encoding="utf-8"))
    date, machine = UNDATED.get(name, ("", ""))
    return Record(path, data, data.get("date", date), describe_machine(machine or _find_machine(data)))


@cache
def read_card(model: str) -> Record:
    """The card of a shipped model."""
    path = MODELS / model / "card.json"
    data = json.loads((ROOT / path).read_text(encoding="utf-8"))
    return Record(path, data, data["created"])
