"""What is compared, and who is told how far it is: what a user of `compare` chooses.

`compare`: networks, or variants of ours, trained and tested in one harness, fold by fold.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainsegnet._atomic import writable, write_text
from brainsegnet.benchmark.fold_run import (
    FoldRun,
    Terms,
    describe_result,
    describe_results,
    median_spacing,
    plan_fold_run,
    read_result,
    to_entry,
    train_and_test,
    write_result,
)
from brainsegnet.benchmark.leaderboard import Results, to_csv, to_json, to_markdown
from brainsegnet.benchmark.models import MODELS, Contender, ablation, choose_models
from brainsegnet.errors import DatasetError, OutputError, TaskError
from brainsegnet.model.store import torch_needed
from brainsegnet.task import Task, load_task
from brainsegnet.training.options import TrainOptions
from brainsegnet.training.split import DataSplit, check_distinct, deal_folds, load_scans, patient_of, split_cases
from brainsegnet.training.train import launch

if TYPE_CHECKING:
    from brainsegnet.training.plan import Record
    from brainsegnet.training.sampler import Scan


@dataclass(frozen=True)
class CompareOptions:
    """What is compared, and how.

    Attributes:
        models: Networks by name, all of `MODELS` if none is named; the others are tested against the first.
        ablation: Compare ours with itself, without one part at a time, instead of with other networks.
        folds: So many trainings of each, each tested on the cases that it did not see.
        training: Recipe, budget, sequences, excluded cases, what becomes of other grids, seed and accelerator of every
            training.
        seeds: So many trainings of each model and fold, under the seed of `training` and the numbers after it; the
            folds are dealt by the first.

    Raises:
        TaskError: there is not one seed.
    """

    models: tuple[str, ...] = ()
    ablation: bool = False
    folds: int = 5
    training: TrainOptions = field(default_factory=TrainOptions)
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise TaskError(f"seeds must be 1 or more, not {self.seeds}")

    def contenders(self, cases: int) -> tuple[Contender, ...]:
        """Who takes part, by a recipe for so many training cases.

        Raises:
            TaskError: a model is unknown, or named twice, or named beside an ablation.
        """
        recipe = self.training.chosen_recipe.fit_to(cases)
        if self.ablation and self.models:
            raise TaskError("an ablation compares brainsegnet with itself; name no models, or leave --ablation out")
        return ablation(recipe) if self.ablation else choose_models(self.models or MODELS, recipe)


@dataclass(frozen=True)
class Moment:
    """Where a comparison is.

    Attributes:
        model: Who trains.
        fold, folds: In which fold, counted from 1, of how many.
        progress: Share of the whole comparison that is done.
        minutes_left: Of the whole comparison, as fast as it went since it was started; None if that is not known yet.
        record: Of the training.
        seed: Of the training, None where all have the same.
    """

    model: str
    fold: int
    folds: int
    progress: float
    minutes_left: float | None
    record: "Record"
    seed: int | None = None


@dataclass(frozen=True)
class CompareWatch:
    """Who is told what happens: `say` gets sentences, `step` gets moments of the trainings."""

    say: Callable[[str], None] = lambda text: None
    step: Callable[[Moment], None] = lambda moment: None


class Clock:
    """How far a comparison is, and how long it will take if it goes on as fast."""

    def __init__(self, finished: int, total: int) -> None:
        self.finished, self.total, self.first, self.started = finished, total, finished, time.monotonic()

    def read(self, progress: float) -> tuple[float, float | None]:
        """Share that is done, and minutes left, when the training in hand has come so far."""
        done = self.finished + progress
        minutes = (time.monotonic() - self.started) / 60
        won = done - self.first
        return done / self.total, minutes * (self.total - done) / won if won else None


SETTINGS, RUNS, TABLE = "settings.json", "runs", "comparison"
BEFORE = {"resample": False, "register": False}
"""Settings of comparisons from before there was a choice."""
UNSAID = ("labels", "regions")
"""Settings that they did not write down."""


@dataclass(frozen=True)
class Comparison:
    """What every model reached on the cases of all finished folds, and sentences on how far that is."""

    entries: Results
    notes: tuple[str, ...]


def compare(
    data: Path | Sequence[Path],
    task: Task | str,
    out: Path,
    options: CompareOptions | None = None,
    watch: CompareWatch | None = None,
) -> Comparison:
    """Train and test networks on the same folds, samples, loss, augmentation and budget, one after the other.

    Scores count the whole grid of a scan: a lesion outside the brain's box, which no network sees, is missed.
    Each training that is finished is kept in `out`; called again, the comparison goes on where it was, and more models
    or seeds can join. The table is written anew after each fold under each seed.

    Args:
        data: Folders of cases, or tables, all with known lesions.
        task: A task, the name of one of ours, or a YAML file.
        out: Gets `comparison.md`, `.csv` and `.json`, and a folder `runs` with a JSON for each training.
        options: What is compared, and how.
        watch: Who is told.

    Raises:
        BrainSegNetError: data, task, options or output folder cannot be used; one sentence says why.
        Interrupted: SIGINT or SIGTERM; what is finished stays, and the same call goes on.
    """
    options, watch = options or CompareOptions(), watch or CompareWatch()
    task = task if isinstance(task, Task) else load_task(task)
    if options.training.hold_out or options.training.validation:
        raise DatasetError("a comparison tests every case in its fold; hold out none, or exclude cases")
    if options.training.simulated:
        raise TaskError("a comparison trains on the cases of its folds alone; leave out simulated cases")
    sources = [data] if isinstance(data, Path) else list(data)
    options.contenders(len(sources))  # wrong names are told before any file is looked at
    split = split_cases(sources, task, replace(options.training, validation=0))
    return _Series(split, options, out, watch).run()


@dataclass(frozen=True)
class _Turn:
    """Whose turn it is to train, under which seed, to be tested on which fold (counted from 1)."""

    seed: int
    fold: int
    contender: Contender

    @property
    def place(self) -> tuple[int, int, str]:
        """Seed, fold, name."""
        return self.seed, self.fold, self.contender.name


class _Series:
    """The trainings of a comparison, and what they share."""

    def __init__(self, split: DataSplit, options: CompareOptions, out: Path, watch: CompareWatch) -> None:
        self.split, self.options, self.out, self.watch = split, options, out, watch
        self.cases, how = {case.name: case for case in split.training}, options.training
        self.folds = deal_folds(list(self.cases), options.folds, how.seed)
        least = len(self.cases) - max(map(len, self.folds))
        self.recipe, self.contenders = how.chosen_recipe.fit_to(least), options.contenders(least)
        self.terms = Terms(split.task, split.sequences, how.budget or self.recipe.budget(), how.seed)
        with torch_needed():
            for contender in self.contenders:
                plan_fold_run(contender, self.terms)
            self.fabric = launch(how, self.recipe)
        self._check_same()
        self.results = {turn.place: read_result(self._file(turn)) for turn in self._order()}

    @property
    def seeds(self) -> range:
        """Those of the trainings; the first deals the folds too."""
        return range(self.terms.seed, self.terms.seed + self.options.seeds)

    def _order(self) -> list[_Turn]:
        """Seed by seed and fold by fold, so that after each of them the models can be compared."""
        folds = range(1, len(self.folds) + 1)
        return [_Turn(seed, fold, who) for seed in self.seeds for fold in folds for who in self.contenders]

    def _file(self, turn: _Turn, suffix: str = "json") -> Path:
        seed = "" if turn.seed == self.terms.seed else f"-seed-{turn.seed}"
        return self.out / RUNS / f"{turn.contender.stem}-fold-{turn.fold}{seed}.{suffix}"

    def _named(self, seed: int) -> int | None:
        """The seed, where there are several."""
        return seed if self.options.seeds > 1 else None

    def _finished(self, seed: int) -> list[int]:
        """Folds that every model has finished under a seed."""
        folds = range(1, len(self.folds) + 1)
        return [fold for fold in folds if all(self.results[seed, fold, c.name] for c in self.contenders)]

    def _settings(self) -> dict[str, Any]:
        """What must agree for a comparison to be continued, as JSON gives it back."""
        settings = {
            "task": self.terms.task.name,
            "labels": self.terms.task.labels,
            "regions": self.terms.task.regions,
            "sequences": self.terms.sequences,
            "folds": self.folds,
            "recipe": self.recipe.model_dump(mode="json"),
            "budget": {self.terms.budget.kind: getattr(self.terms.budget, self.terms.budget.kind)},
            "seed": self.terms.seed,
            "resample": self.split.resample,
            "register": self.split.register,
            "device": self.fabric.device.type,
        }
        known: dict[str, Any] = json.loads(json.dumps(settings))
        return known

    def _check_same(self) -> None:
        """Refuse the folder of another comparison.

        Raises:
            OutputError: it is that, or cannot be written to.
        """
        path, mine = self.out / SETTINGS, self._settings()
        writable(self.out / RUNS / SETTINGS, ())
        if not path.is_file():
            return
        try:
            unsaid = BEFORE | {name: mine[name] for name in UNSAID}
            theirs = unsaid | dict(json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise OutputError(f"{path} is damaged ({error}); choose another folder for the comparison") from error
        if changed := [name for name, value in mine.items() if theirs.get(name) != value]:
            raise OutputError(
                f"{self.out} holds a comparison with other {', '.join(changed)}; continue it with the arguments it "
                "had, or choose another folder"
            )

    def run(self) -> Comparison:
        """Every training that is not finished, and the table after each fold."""
        left = [turn for turn in self._order() if self.results[turn.place] is None]
        self.watch.say(self._describe(len(left)))
        scans = self._load() if left else {}
        write_text(json.dumps(self._settings(), indent=1) + "\n", self.out / SETTINGS)
        clock = Clock(len(self.results) - len(left), len(self.results))
        for turn in left:
            self._train(turn, scans, clock)
            if turn.fold in self._finished(turn.seed):
                self._write()
        return self._write()

    def _describe(self, left: int) -> str:
        budget, total = self.terms.budget, len(self.results)
        patients = len({patient_of(name) for name in self.cases})
        seeds = f"; seeds {', '.join(map(str, self.seeds))}" if self.options.seeds > 1 else ""
        return (
            f"task {self.terms.task.name}, sequences {', '.join(self.terms.sequences)}; {len(self.cases)} cases of "
            f"{patients} patients in {len(self.folds)} folds; {', '.join(c.name for c in self.contenders)}{seeds}; "
            f"{total} trainings of {getattr(budget, budget.kind):g} {budget.kind}, {total - left} of them finished"
        )

    def _load(self) -> dict[str, "Scan"]:
        scans = dict(zip(self.cases, load_scans(self.split.training, self.split, self.watch.say), strict=True))
        check_distinct({name: scan.image for name, scan in scans.items()})
        self.terms = replace(self.terms, spacing_mm=median_spacing(scans))
        return scans

    def _train(self, turn: _Turn, scans: Mapping[str, "Scan"], clock: Clock) -> None:
        contender, fold, folds, seed = turn.contender, turn.fold, len(self.folds), self._named(turn.seed)

        def report(record: "Record") -> None:
            done, minutes_left = clock.read(record.progress)
            self.watch.step(Moment(contender.name, fold, folds, done, minutes_left, record, seed))

        plan = plan_fold_run(contender, replace(self.terms, seed=turn.seed))
        state = self._file(turn, "safetensors")
        fold_run = FoldRun(contender, plan, fold, self.folds[fold - 1])
        result = train_and_test(fold_run, scans, self.terms.task, self.fabric, state, report)
        write_result(result, self._file(turn))
        state.unlink(missing_ok=True)
        self.results[turn.place] = result
        clock.finished += 1
        minutes_left = clock.read(0)[1] or 0
        self.watch.say(f"{describe_result(result, folds, seed)}, about {minutes_left:.0f} minutes left")
        for note in result.notes:
            self.watch.say(f"{contender.name}: {note}")

    def _write(self) -> Comparison:
        """The table over the folds that every model has finished, those of the first seed at least."""
        done = {seed: folds for seed in self.seeds if (folds := self._finished(seed))}
        cases = [name for name in self.cases if any(name in self.folds[fold - 1] for fold in done[self.terms.seed])]
        finished = {
            c.name: [[r for f in folds if (r := self.results[seed, f, c.name])] for seed, folds in done.items()]
            for c in self.contenders
        }
        entries = {name: to_entry(seeds, cases) for name, seeds in finished.items()}
        results = [result for seeds in finished.values() for of_seed in seeds for result in of_seed]
        notes = (self._note({seed: len(folds) for seed, folds in done.items()}), *describe_results(results))
        settings = self._settings() | {"seeds": list(self.seeds)}
        for suffix, text in (
            ("md", to_markdown(entries, notes)),
            ("csv", to_csv(entries)),
            ("json", to_json(entries, settings, notes)),
        ):
            write_text(text, self.out / f"{TABLE}.{suffix}")
        return Comparison(entries, notes)

    def _note(self, done: Mapping[int, int]) -> str:
        """Of a comparison with so many folds finished under each seed."""
        budget, folds = self.terms.budget, len(self.folds)
        progress = f"seed {self.terms.seed}; {done[self.terms.seed]} of {folds} folds by patient finished."
        if self.options.seeds > 1:
            under = [f"{count} of {folds} under seed {seed}" for seed, count in done.items()]
            progress = f"{self.options.seeds} seeds from {self.terms.seed} on; folds by patient finished: "
            progress += f"{', '.join(under)}."
        return (
            f"Task {self.terms.task.name}, sequences {', '.join(self.terms.sequences)}; recipe "
            f"{self.recipe.name}, {getattr(budget, budget.kind):g} {budget.kind} a training, " + progress
        )
