"""The house stands: imports go down the floors only, and each heavy library enters by its own doors."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "brainsegnet"
FLOORS = {
    "errors": 0,
    "_types": 0,
    "_documents": 0,
    "_atomic": 1,
    "_machine": 0,
    "progress": 1,
    "volume": 1,
    "task": 1,
    "io": 2,
    "preprocessing": 2,
    "model": 2,
    "metrics": 3,
    "anatomy": 4,
    "plotting": 4,
    "inference": 5,
    "simulation": 5,
    "training": 6,
    "pipeline": 6,
    "benchmark": 7,
    "paper": 7,
    "reporting": 7,
    "cohort": 8,
    "followup": 8,
    "cli": 9,
}
TORCH_ROOMS = {"model", "training", "benchmark"}
TORCH_FILES = {
    *(f"inference/{name}.py" for name in ("torch_backend", "torch_prepare")),
    *(f"simulation/{name}.py" for name in ("fields", "glioma", "confounders", "rendering", "realistic")),
    *(f"simulation/{name}.py" for name in ("white_matter", "white_matter_case")),
}
HEAVY = {"torch", "lightning", "matplotlib", "SimpleITK", "scipy", "numpy", "monai", "pydantic", "openvino", "nibabel"}


def files() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or not path.name.startswith("__"))


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Modules that a file imports anywhere, inside functions and type-checking blocks too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down_the_floors(path: Path) -> None:
    room = room_of(path)
    for module in imported(path):
        if not module.startswith("brainsegnet.") or (other := module.split(".")[1]) == room:
            continue
        assert FLOORS[other] < FLOORS[room], f"{room} (floor {FLOORS[room]}) imports {module} (floor {FLOORS[other]})"


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports for types alone count too."""
    names = {"brainsegnet." + ".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in files()}
    TopologicalSorter({name: imported(path) & names.keys() for name, path in names.items()}).prepare()


def test_every_room_is_on_the_plan() -> None:
    assert {room_of(path) for path in files()} == set(FLOORS)


def test_every_file_is_named_on_the_page_of_the_house() -> None:
    page = (SOURCE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert not [path for path in files() if path.stem != "__init__" and f"`{path.stem}`" not in page]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_torch_enters_by_its_own_doors(path: Path) -> None:
    uses = any(module.split(".")[0] in {"torch", "lightning", "safetensors"} for module in imported(path))
    allowed = room_of(path) in TORCH_ROOMS or str(path.relative_to(SOURCE)) in TORCH_FILES
    assert allowed or not uses or path.name == "model.py"


@pytest.mark.parametrize(("library", "door"), [("nibabel", "io/nifti.py"), ("SimpleITK", "volume.py")])
def test_libraries_of_images_enter_by_one_door(library: str, door: str) -> None:
    uses = {path for path in files() if any(module.split(".")[0] == library for module in imported(path))}
    assert {path.relative_to(SOURCE).as_posix() for path in uses} == {door}


def test_no_utils_room() -> None:
    assert not {path.stem for path in files()} & {"utils", "helpers", "common", "misc"}


@pytest.mark.parametrize("module", ["brainsegnet", "brainsegnet.cli"])
def test_the_door_is_light(module: str) -> None:
    code = f"import sys, {module}; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_functions_fit_on_a_screen() -> None:
    long = []
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (lines := (node.end_lineno or 0) - node.lineno + 1) > 60:
                long.append(f"{path.name}:{node.name} has {lines} lines")
    assert not long


def test_every_stable_name_is_there() -> None:
    import brainsegnet

    assert all(getattr(brainsegnet, name) for name in brainsegnet.__all__)
    assert set(brainsegnet.__all__) == {*brainsegnet._HOMES, "BrainSegNetError"}
