"""The tools that judge: what to install for each, and where it is."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".venv-judges"


@dataclass(frozen=True)
class Judge:
    """A tool that scores masks.

    Attributes:
        name: Name of its scorer in `judges.scorers`.
        title: Name in tables.
        module: What its interpreter must be able to import.
        packages: What pip installs into its environment. Empty for a library of the development environment.
        checkout: GitHub repository whose code it runs, if it is not on PyPI.
    """

    name: str
    title: str
    module: str
    packages: Sequence[str] = ()
    checkout: str = ""

    @property
    def python_variable(self) -> str:
        """Variable that may name its interpreter."""
        return f"BRAINSEGNET_JUDGE_{self.name.upper()}"

    @property
    def checkout_variable(self) -> str:
        """Variable that names the folder of its checkout."""
        return f"BRAINSEGNET_{self.name.upper()}"

    @property
    def python(self) -> Path:
        """Its interpreter: that of the variable, of `.venv-judges/`, or the running one."""
        own = ENVIRONMENTS / self.name / "bin" / "python" if self.packages else Path(sys.executable)
        return Path(os.environ.get(self.python_variable, own))

    def find_fault(self) -> str:
        """Why it cannot be asked, or an empty text."""
        if not self.python.exists():
            return f"no interpreter at {self.python}; run: python -m judges {self.name}"
        folder = os.environ.get(self.checkout_variable, "")
        if self.checkout and not folder:
            return f"set {self.checkout_variable} to a checkout of github.com/{self.checkout}"
        if self.checkout and not Path(folder).is_dir():
            return f"{self.checkout_variable} is {folder}, which is no folder"
        search = f"import sys, importlib.util; sys.exit(importlib.util.find_spec({self.module!r}) is None)"
        if subprocess.run([self.python, "-c", search]).returncode:
            return f"{self.module} is not installed for {self.python}"
        return ""

    @property
    def arguments(self) -> list[str]:
        """What its scorer needs besides the folder of masks."""
        return [os.environ[self.checkout_variable]] if self.checkout else []


JUDGES = (
    Judge("monai", "MONAI", "monai"),
    Judge("simpleitk", "SimpleITK", "SimpleITK"),
    Judge("medpy", "MedPy", "medpy", ["MedPy==0.5.2"]),
    Judge("surface_distance", "surface-distance", "surface_distance", ["surface-distance==0.1", "numpy<2"]),
    Judge("isles2022", "ISLES 2022", "cc3d", ["connected-components-3d", "numpy<2"], "ezequieldlrosa/isles22"),
    Judge(
        "brats2023",
        "BraTS 2023",
        "surface_distance",
        ["numpy==1.26.4", "pandas<2", "scipy==1.11.*", "connected-components-3d", "nibabel", "surface-distance==0.1"],
        "rachitsaluja/BraTS-2023-Metrics",
    ),
    Judge("brats2026", "BraTS 2026", "brats_evaluation", ["BraTS-evaluation==0.0.10"]),
)
"""All of them. MedPy is GPL-3 and BraTS 2026 AGPL-3: they stay outside this project, in processes of their own."""
