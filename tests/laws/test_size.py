"""The package stays small and each thing is said once: sizes of files, rooms and functions, imports, type aliases."""

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "brainsegnet"
FILES = sorted(SOURCE.rglob("*.py"))
LINES = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
FUNCTIONS = [
    (path, node)
    for path, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
]
OPTIONAL = {"safetensors", "tensorboard", "nncf", "onnx", "nilearn", "monai", "dcm2niix", "pyarrow", "ray"}
"""What extras install, but for torch and lightning, of which whole rooms are made (see `test_house.py`)."""
TYPES = ast.Subscript | ast.BinOp
"""How types are written: `tuple[int, int]`, `A | B`."""
HEAVY = {"torch", "lightning", "matplotlib", "SimpleITK", "nibabel", "scipy", "numpy", "monai", "pydantic", "openvino"}


def place(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def test_no_room_holds_more_than_a_fifth_of_the_code():
    rooms = Counter()
    for path, lines in LINES.items():
        rooms[place(path).split("/")[0]] += lines
    shares = {room: lines / rooms.total() for room, lines in rooms.items()}
    assert not {room: f"{share:.1%}" for room, share in shares.items() if share > 0.2}


def test_functions_have_at_most_60_lines():
    long = {f"{place(path)}: {node.name}": (node.end_lineno or 0) - node.lineno + 1 for path, node in FUNCTIONS}
    assert not {name: lines for name, lines in long.items() if lines > 60}


def test_each_optional_library_is_imported_in_one_file():
    homes = defaultdict(set)
    for path, tree in TREES.items():
        for library in imported(tree) & OPTIONAL:
            homes[library].add(place(path))
    assert not {library: sorted(files) for library, files in homes.items() if len(files) > 1}


def imported(tree: ast.AST) -> set[str]:
    """Libraries that a file imports anywhere, also by name through `import_module`, `find_spec` or the like."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).split(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            found |= {str(part.value).split(".")[0] for part in node.args if isinstance(part, ast.Constant)}
    return found


def test_no_type_alias_is_defined_twice():
    homes = defaultdict(set)
    for path, tree in TREES.items():
        for name in aliases(tree):
            homes[name].add(place(path))
    assert not {name: sorted(files) for name, files in homes.items() if len(files) > 1}


def aliases(tree: ast.Module) -> set[str]:
    """The types that a file gives names of their own."""
    types = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.value, TYPES)]
    names = {target.id for node in types for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("_") and name[0].isupper() and not name.isupper()}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["segment", "--help"]], ids=" ".join)
def test_help_loads_no_heavy_library(arguments):
    code = (
        f"import sys; sys.argv = ['brainsegnet', *{arguments}]\n"
        "from brainsegnet.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
