"""`run_benchmark`: train and test networks, or variants of Brain SegNet, under the same conditions, fold by fold."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainsegnet._atomic import claiming, writable, write_text
from brainsegnet._documents import load_json, read_text
from brainsegnet.benchmark import BenchmarkOptions
from brainsegnet.benchmark.fold_run import Conditions, FoldResult, FoldRun, summarise, train_and_test
from brainsegnet.benchmark.leaderboard import Results, to_csv, to_json, to_markdown
from brainsegnet.benchmark.models import choose_specs
from brainsegnet.errors import OutputError
from brainsegnet.io.limits import allow_voxels
from brainsegnet.model.store import torch_needed
from brainsegnet.progress import Callback, ProgressEvent
from brainsegnet.task import Task, load_task
from brainsegnet.training.split import DataSplit, check_distinct, deal_folds, load_scans, patient_of, split_cases
from brainsegnet.training.train import launch

if TYPE_CHECKING:
    from brainsegnet.training.sampler import Scan

SETTINGS, RUNS, TABLE = "settings.json", "runs", "benchmark"


@dataclass(frozen=True)
class Benchmark:
    """Results of a benchmark on the cases of all finished folds.

    Attributes:
        results: Name of each network to its scores and costs.
        notes: Sentences that say what was done.
    """

    results: Results
    notes: tuple[str, ...]


def run_benchmark(
    data: Path | Sequence[Path],
    task: Task | str,
    out: Path,
    options: BenchmarkOptions | None = None,
    callback: Callback | None = None,
) -> Benchmark:
    """Train and test networks one after another, on the same folds, samples, loss, augmentation and budget.

    Scores count the whole grid of a scan, also outside the box of the brain that the networks see. Each finished
    training is kept in `out`. A second call continues the benchmark, and may add networks or seeds. The tables are
    written after each fold of each seed.

    Args:
        data: Folders of cases, or tables, all with known lesions.
        task: A task, the name of a built-in task, or a YAML file.
        out: Folder that gets `benchmark.md`, `.csv` and `.json`, and a folder `runs` with a JSON for each training.
        options: What is compared, and how.
        callback: Receives messages and progress.

    Raises:
        BrainSegNetError: data, task, options or output folder cannot be used; one sentence says why.
        Interrupted: SIGINT or SIGTERM arrived. Finished trainings stay, and the same call continues.
    """
    options = options or BenchmarkOptions()
    task = task if isinstance(task, Task) else load_task(task)
    sources = [data] if isinstance(data, Path) else list(data)
    choose_specs(options, len(sources))  # wrong names are refused before any file is read
    with allow_voxels(options.max_voxels):
        split = split_cases(sources, task, options.for_reading())
        harness = _Harness(split, options, out, callback or Callback())
        with claiming(out, [SETTINGS]):
            return harness.run()


class _Progress(Callback):
    """Passes the events of a training on, with its place in the benchmark and the minutes left at the speed so far."""

    def __init__(self, callback: Callback, finished: int, total: int) -> None:
        self.callback, self.finished, self.total = callback, finished, total
        self.place: dict[str, Any] = {}
        self._first, self._started = finished, time.monotonic()

    def on_progress(self, event: ProgressEvent) -> None:
        """A training has come so far."""
        done, left = (self.finished + event.progress) / self.total, self.minutes_left(event.progress)
        located = replace(event, progress=done, training=event.progress, minutes_left=left, **self.place)
        self.callback.on_progress(located)

    def minutes_left(self, progress: float = 0.0) -> float | None:
        """Of the whole benchmark, when the current training has come so far; None in the first hundredth of the first.

        A budget in minutes counts the first step from its start, so the first fraction is nearly zero.
        """
        won = self.finished + progress - self._first
        minutes = (time.monotonic() - self._started) / 60
        return minutes * (self.total - self.finished - progress) / won if won >= 0.01 else None


class _Harness:
    """The trainings of a benchmark, and what they share."""

    def __init__(self, split: DataSplit, options: BenchmarkOptions, out: Path, callback: Callback) -> None:
        self.split, self.options, self.out, self.callback = split, options, out, callback
        self.cases = {case.name: case for case in split.training}
        self.folds = deal_folds(list(self.cases), options.folds, options.seed)
        self.seeds = range(options.seed, options.seed + options.seeds)
        fewest = len(self.cases) - max(map(len, self.folds))
        self.recipe, self.specs = options.chosen_recipe.fit_to(fewest), choose_specs(options, fewest)
        self.conditions = Conditions(split.task, split.sequences, options.budget or self.recipe.budget())
        with torch_needed():
            for fold_run in self._fold_runs():
                fold_run.plan(self.conditions)
            self.fabric = launch(self.recipe, options.accelerator)
        self._check_same()
        self.results = {run.key: FoldResult.read(self._file(run)) for run in self._fold_runs()}

    def _fold_runs(self) -> list[FoldRun]:
        """Seed by seed and fold by fold, so that after each of them the models can be compared."""
        folds = list(enumerate(self.folds, 1))
        return [FoldRun(spec, seed, *fold) for seed in self.seeds for fold in folds for spec in self.specs]

    def _file(self, run: FoldRun, suffix: str = "json") -> Path:
        seed = "" if run.seed == self.options.seed else f"-seed-{run.seed}"
        return self.out / RUNS / f"{run.spec.stem}-fold-{run.fold}{seed}.{suffix}"

    def _finished(self, seed: int) -> list[int]:
        """Folds that every model has finished under a seed."""
        folds = range(1, len(self.folds) + 1)
        return [fold for fold in folds if all(self.results[seed, fold, spec.name] for spec in self.specs)]

    def _settings(self) -> dict[str, Any]:
        """What must agree for a benchmark to be continued, as JSON gives it back."""
        task = self.split.task
        settings = {
            "task": task.name,
            "labels": task.labels,
            "regions": task.regions,
            "sequences": self.split.sequences,
            "folds": self.folds,
            "recipe": self.recipe.model_dump(mode="json"),
            "budget": self.conditions.budget.to_json(),
            "seed": self.options.seed,
            "resample": self.split.resample,
            "register": self.split.register,
            "device": self.fabric.device.type,
        }
        plain: dict[str, Any] = json.loads(json.dumps(settings))
        return plain

    def _check_same(self) -> None:
        """Refuse the folder of another benchmark, and one that cannot be written to."""
        path = self.out / SETTINGS
        writable(self.out / RUNS / SETTINGS, ())
        if not path.is_file():
            return
        try:
            theirs = dict(load_json(read_text(path)))
        except (TypeError, ValueError) as error:
            raise OutputError(f"{path} is damaged ({error}); choose another folder for the benchmark") from error
        if changed := [name for name, value in self._settings().items() if theirs.get(name) != value]:
            raise OutputError(
                f"{self.out} holds a benchmark with other {', '.join(changed)}; continue it with the arguments it "
                "had, or choose another folder"
            )

    def run(self) -> Benchmark:
        """Every training that is not finished, and the tables after each fold."""
        left = [run for run in self._fold_runs() if self.results[run.key] is None]
        self.callback.on_message(self._describe(len(left)))
        scans = self._load() if left else {}
        write_text(json.dumps(self._settings(), indent=1) + "\n", self.out / SETTINGS)
        progress = _Progress(self.callback, len(self.results) - len(left), len(self.results))
        for run in left:
            self._train(run, scans, progress)
            if run.fold in self._finished(run.seed):
                self._write()
        return self._write()

    def _describe(self, left: int) -> str:
        total, patients = len(self.results), len({patient_of(name) for name in self.cases})
        seeds = f"; seeds {', '.join(map(str, self.seeds))}" if len(self.seeds) > 1 else ""
        return (
            f"task {self.split.task.name}, sequences {', '.join(self.split.sequences)}; {len(self.cases)} cases of "
            f"{patients} patients in {len(self.folds)} folds; {', '.join(spec.name for spec in self.specs)}{seeds}; "
            f"{total} trainings of {self.conditions.budget}, {total - left} of them finished"
        )

    def _load(self) -> Mapping[str, "Scan"]:
        scans = load_scans(self.split.training, self.split, self.callback.on_message)
        check_distinct(scans, scans)
        d, h, w = np.median([scan.spacing_mm for scan in scans.values()], axis=0).tolist()
        self.conditions = replace(self.conditions, spacing_mm=(d, h, w))
        return scans

    def _train(self, run: FoldRun, scans: Mapping[str, "Scan"], progress: _Progress) -> None:
        several, state_file = len(self.seeds) > 1, self._file(run, "safetensors")
        progress.place = {"model": run.spec.name, "fold": run.fold, "folds": len(self.folds)}
        progress.place["seed"] = run.seed if several else None
        result = train_and_test(run, self.conditions, scans, self.fabric, state_file, progress)
        result.write(self._file(run))
        state_file.unlink(missing_ok=True)
        self.results[run.key] = result
        progress.finished += 1
        line, left = result.describe(len(self.folds), with_seed=several), progress.minutes_left() or 0
        self.callback.on_message(f"{line}, about {left:.0f} minutes left")
        for note in result.notes:
            self.callback.on_message(f"{run.spec.name}: {note}")

    def _write(self) -> Benchmark:
        """The tables over the folds that every model has finished, those of the first seed at least."""
        done = {seed: folds for seed in self.seeds if (folds := self._finished(seed))}
        tested = {name for fold in done[self.options.seed] for name in self.folds[fold - 1]}
        cases = [name for name in self.cases if name in tested]
        finished = {spec.name: [self._results_of(spec.name, *under) for under in done.items()] for spec in self.specs}
        results = {name: summarise(seeds, cases) for name, seeds in finished.items()}
        runs = [run for seeds in finished.values() for of_seed in seeds for run in of_seed]
        machines = f"Machine: {'; '.join(sorted({run.machine for run in runs}))}."
        memory = [f"{run.model}: {note}" for run in runs for note in run.notes]
        notes = (self._note({seed: len(folds) for seed, folds in done.items()}), machines, *memory)
        settings = self._settings() | {"seeds": list(self.seeds)}
        write_text(to_markdown(results, notes), self.out / f"{TABLE}.md")
        write_text(to_csv(results), self.out / f"{TABLE}.csv")
        write_text(to_json(results, settings, notes), self.out / f"{TABLE}.json")
        return Benchmark(results, notes)

    def _results_of(self, model: str, seed: int, folds: Sequence[int]) -> list[FoldResult]:
        return [result for fold in folds if (result := self.results[seed, fold, model])]

    def _note(self, done: Mapping[int, int]) -> str:
        """How far the benchmark is, with so many folds finished under each seed."""
        first, folds = self.options.seed, len(self.folds)
        finished = f"seed {first}; {done[first]} of {folds} folds by patient finished."
        if len(self.seeds) > 1:
            under = ", ".join(f"{count} of {folds} under seed {seed}" for seed, count in done.items())
            finished = f"{len(self.seeds)} seeds from {first} on; folds by patient finished: {under}."
        return (
            f"Task {self.split.task.name}, sequences {', '.join(self.split.sequences)}; recipe "
            f"{self.recipe.name}, {self.conditions.budget} a training, {finished}"
        )
