"""Simulate cases on disk, in the folders and file names of BRATS 2015, ISLES 2022, ISLES 2017, or with plain names.

Heavy libraries load when the first case is simulated, so the command line takes its flags from `SimulateOptions`.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from brainsegnet._atomic import OutputOptions, claiming, hash_file, refuse_existing, replacing, writable, write_text
from brainsegnet._documents import load_json, read_text
from brainsegnet.errors import DatasetError, MissingExtra, TaskError
from brainsegnet.progress import Callback, CaseCounter
from brainsegnet.simulation import RealisticLesion, StrokeTask

if TYPE_CHECKING:
    from brainsegnet.simulation.stroke_case import Library
    from brainsegnet.volume import Case

RECORD = "simulated.json"
"""File in the folder of a case with its seed, its options, and the SHA-256 of its images."""


@dataclass(frozen=True)
class SimulateOptions:
    """Which cases to simulate: phantoms by default, or realistic cases or strokes.

    A phantom is a head with a glioma, quick to make, for trials and tests. The other cases are made for training. The
    fields are the options of `brainsegnet simulate`.

    Raises:
        TaskError: the number of cases or the seed is out of range, or two options exclude each other.
    """

    cases: int = 8
    "Number of cases."
    seed: int = 0
    """Seed of the first case; case i has seed + i, also in its name. A seed gives the same bytes on one kind of
    processor."""
    shape: tuple[int, int, int] | None = None
    "Voxels of a phantom or a procedural anatomy along slices, rows and columns; its size in millimetres stays."
    realistic: bool = False
    """Simulate cases for training: the lesions of --lesion in a deformed anatomy, with scanner artefacts. Needs
    torch."""
    lesion: RealisticLesion = "glioma"
    "What realistic cases show: a glioma, or white matter lesions as in multiple sclerosis."
    stroke: StrokeTask | None = None
    "Simulate ischaemic strokes for training, in the file names of isles2022 (DWI, ADC) or isles2017 (six maps)."
    anatomy: str | Path | None = None
    """Anatomies of realistic cases and strokes: a folder of FreeSurfer label maps, icbm152 (from nilearn), or
    procedural. By default icbm152 for realistic cases if nilearn is installed, else procedural."""
    shapes: Path | None = None
    "For strokes: a folder of lesion masks in MNI space that give the shapes. By default all shapes are simulated."
    detail: float = 1.0
    "For strokes: factor on the number of voxels along each axis; below 1 for quick trials."

    def __post_init__(self) -> None:
        if self.cases < 1:
            raise TaskError(f"{self.cases} cases cannot be simulated; ask for one or more")
        if self.seed < 0:
            raise TaskError(f"seed must be 0 or more, not {self.seed}")
        if self.stroke and self.realistic:
            raise TaskError("every simulated stroke is realistic; leave out --realistic or --stroke")
        if self.stroke and self.shape:
            raise TaskError("a stroke is scanned on the grid of its data set; leave out --shape or --stroke")
        if not self.stroke and (self.shapes or self.detail != 1):
            raise TaskError("--shapes and --detail are for strokes; add --stroke isles2022 or --stroke isles2017")
        if self.lesion not in get_args(RealisticLesion):
            raise TaskError(f"unknown lesion {self.lesion!r}; choose one of {', '.join(get_args(RealisticLesion))}")
        if self.lesion != "glioma" and not self.realistic:
            raise TaskError(f"--lesion {self.lesion} is for realistic cases; add --realistic")
        if self.anatomy and not (self.realistic or self.stroke):
            raise TaskError(f"--anatomy {self.anatomy} is for realistic cases and strokes; add --realistic or --stroke")


def simulate(
    out: Path,
    options: SimulateOptions | None = None,
    callback: Callback | None = None,
    output: OutputOptions | None = None,
) -> list[Path]:
    """Simulate cases, by default eight phantoms, and write each into a folder of its own.

    Args:
        out: Folder that gets a folder for each case.
        options: Which cases to simulate.
        callback: Its `on_case` receives the folder of each case, and its `on_progress` how many are done.
        output: What happens to cases that exist already. By default they are refused.

    Returns:
        The folders of the cases.

    Raises:
        OutputError: the folder cannot be written, or a case exists already.
        ImageError: the shape or the detail is too coarse for a head, or a label map is not a whole brain.
        DatasetError: a folder of label maps or lesion masks is missing or empty.
        MissingExtra: torch, or nilearn for `icbm152`, is not installed.
    """
    options, output = options or SimulateOptions(), output or OutputOptions()
    make = open_simulator(options)
    writable(out / "case", ())
    numbers = range(options.seed, options.seed + options.cases)
    homes = {number: out / name_case(options, number) for number in numbers}
    kind = options.stroke or (options.lesion if options.realistic else "phantom")
    with claiming(out, [f"{kind} of seed {number}" for number in numbers]):
        done = _find_done(homes, options, output)
        if done and callback:
            callback.on_message(f"{len(done)} of {len(numbers)} cases are done already and are left out")
        todo = {number: home for number, home in homes.items() if number not in done}
        counter = CaseCounter(callback, len(todo))
        for number, home in todo.items():
            _write_case(make(number), home, number, options)
            if callback:
                callback.on_case(home.name, home)
            counter.advance()
    return [*homes.values()]


def name_case(options: SimulateOptions, seed: int) -> str:
    """Name of the case of a seed.

    Examples:
        >>> name_case(SimulateOptions(), 7), name_case(SimulateOptions(stroke="isles2017"), 7)
        ('phantom0007', 'phantom_7')
        >>> name_case(SimulateOptions(realistic=True, lesion="white-matter"), 7)
        'whitematter0007'
    """
    if options.stroke == "isles2017":
        return f"phantom_{seed}"
    realistic = {"glioma": "glioma", "white-matter": "whitematter"}
    kind = "sub-strokephantom" if options.stroke else realistic[options.lesion] if options.realistic else "phantom"
    return f"{kind}{seed:04d}"


def _write_case(case: "Case", home: Path, seed: int, options: SimulateOptions) -> None:
    """Write a case and its record. A new folder appears whole; in one that exists, the record is written last."""
    from brainsegnet.io.case_files import LESION
    from brainsegnet.io.images import write_image

    volumes, files = {**case.images, **({LESION: case.lesion} if case.lesion else {})}, {}
    if home.exists():
        (home / RECORD).unlink(missing_ok=True)
    with nullcontext(home) if home.exists() else replacing(home) as folder:
        for channel, (name, volume) in enumerate(volumes.items()):
            file = sequence_path(case.name, options, name, 10 * seed + channel)
            write_image(volume, folder / file)
            files[file.as_posix()] = hash_file(folder / file)
        record = {
            "seed": seed,
            "options": _list_options(options),
            "files": files,
            "brainsegnet": version("brainsegnet"),
        }
        write_text(json.dumps(record, indent=2) + "\n", folder / RECORD)


def _list_options(options: SimulateOptions) -> dict[str, Any]:
    """The options of a case, as its record holds them. The seed of the case is beside them."""
    chosen = {name: value for name, value in vars(options).items() if name not in ("cases", "seed")}
    return {n: str(v) if isinstance(v, Path) else [*v] if isinstance(v, tuple) else v for n, v in chosen.items()}


def _find_done(homes: Mapping[int, Path], options: SimulateOptions, output: OutputOptions) -> set[int]:
    """Seeds of the cases that are done: their record states the same options, and its files are there.

    Raises:
        OutputError: another case would be replaced, and `overwrite` is not set.
    """
    done, conflicts = set[int](), dict[Path, str]()
    for seed, home in homes.items():
        if not home.exists():
            continue
        if not output.skip_existing:
            conflicts[home] = ""
        elif record := _list_whole(home, output.verify):
            if record.get("seed") == seed and record.get("options") == _list_options(options):
                done.add(seed)
            else:
                conflicts[home] = "it was simulated with other options"
    if not output.overwrite:
        refuse_existing(conflicts)
    return done


def _list_whole(home: Path, verify: bool) -> Mapping[str, Any]:
    """The record of a case; empty if there is none, or if a file is absent or has been changed."""
    with suppress(OSError, ValueError):
        record = load_json(read_text(home / RECORD))
        files = record["files"] if isinstance(record, dict) and isinstance(record.get("files"), dict) else {}
        paths = {home / name: sha256 for name, sha256 in files.items() if ".." not in Path(name).parts}
        if paths and all(path.is_file() and (not verify or hash_file(path) == s) for path, s in paths.items()):
            return dict(record)
    return {}


def open_simulator(options: SimulateOptions, device: str = "cpu") -> "Callable[[int], Case]":
    """A function that simulates a case in memory from a seed.

    Args:
        options: Which cases to simulate.
        device: Device of torch that computes realistic cases.

    Raises:
        TaskError: as `simulate`.
        ImageError: as `simulate`.
        DatasetError: as `simulate`.
        MissingExtra: as `simulate`.
    """
    if options.stroke:
        from brainsegnet.simulation.stroke_case import simulate_stroke

        task, library, detail = options.stroke, open_library(options.shapes, options.anatomy), options.detail
        return lambda seed: simulate_stroke(seed, task, library, detail)
    if not options.realistic:
        from brainsegnet.simulation.phantom import DEMO_SHAPE, simulate_phantom

        return lambda seed: simulate_phantom(seed, options.shape or DEMO_SHAPE)
    from brainsegnet.anatomy.label_maps import default_anatomy, open_anatomies

    try:
        from brainsegnet.simulation.realistic import simulate_glioma
        from brainsegnet.simulation.white_matter_case import simulate_white_matter_lesions
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtra('realistic cases need torch; run: pip install "brainsegnet[train]"') from error
    anatomies = open_anatomies(options.anatomy or default_anatomy(), options.shape)
    make = simulate_glioma if options.lesion == "glioma" else simulate_white_matter_lesions
    return lambda seed: make(seed, anatomies(seed), name_case(options, seed), device)


def sequence_path(case: str, options: SimulateOptions, sequence: str, identifier: int) -> Path:
    """Path of a sequence, or of the `lesion`, within the folder of its case.

    It follows ISLES 2022 or ISLES 2017 for strokes, and BRATS 2015 for phantoms and gliomas. White matter lesions have
    plain names.

    Examples:
        >>> sequence_path("sub-strokephantom0001", SimulateOptions(stroke="isles2022"), "dwi", 0).as_posix()
        'sub-strokephantom0001_ses-0001_dwi.nii.gz'
    """
    from brainsegnet.io.case_files import LESION
    from brainsegnet.io.layouts import smir_path, vsd_path

    if options.lesion == "white-matter":
        return Path(f"{sequence}.nii.gz")
    if options.stroke is None:
        return vsd_path(sequence, identifier)
    if options.stroke == "isles2017":
        return smir_path(sequence, identifier, "VSD")
    return Path(f"{case}_ses-0001_{'msk' if sequence == LESION else sequence}.nii.gz")


def open_library(shapes: Path | None = None, anatomy: str | Path | None = None) -> "Library":
    """Open what strokes are simulated from: lesion shapes, arterial territories and anatomies.

    Args:
        shapes: Folder of lesion masks (.nii or .nii.gz) in MNI space; subfolders are searched. A file `ArterialAtlas*`
            in it holds arterial territories. None simulates the shapes.
        anatomy: As for `open_anatomies`; None means procedural anatomies.

    Raises:
        DatasetError: a folder does not exist or holds no label map.
        MissingExtra: nilearn is not installed.
    """
    from brainsegnet._atomic import is_hidden
    from brainsegnet.anatomy.label_maps import open_anatomies
    from brainsegnet.io.images import read_labels
    from brainsegnet.simulation.stroke_case import Library

    files = sorted(path for ending in ("*.nii", "*.nii.gz") for path in shapes.rglob(ending)) if shapes else []
    files = [path for path in files if not any(map(is_hidden, path.relative_to(shapes or path).parts))]
    atlases = [path for path in files if path.name.startswith("ArterialAtlas")]
    masks = [path for path in files if path not in atlases]
    if shapes and not masks:
        raise DatasetError(f"{shapes} holds no lesion masks (.nii or .nii.gz); name a folder of masks in MNI space")
    anatomies = open_anatomies(anatomy) if anatomy else None
    return Library(
        draw_anatomy=(lambda rng: anatomies(int(rng.integers(2**31)))) if anatomies else None,
        draw_shape=(lambda rng: read_labels(masks[int(rng.integers(len(masks)))])) if masks else None,
        atlas=read_labels(atlases[0]) if atlases else None,
    )
