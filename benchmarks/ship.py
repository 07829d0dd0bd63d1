"""Make the weights that the package carries: from grown cases, then from real ones, scored by folds of patients.

    brainsegnet grow grown/tumour --realistic --cases 100
    python benchmarks/ship.py grown/tumour --real FOLDER FOLDER --task brats2021 --work runs/tumour \
        --out src/brainsegnet/models/tumour --recipe thorough --minutes 40 8 --licence "..." --sources "..."

    brainsegnet grow grown/perfusion --stroke isles2017 --cases 40 --anatomy LABELS --shapes SHAPES
    brainsegnet grow second/perfusion --stroke isles2017 --cases 8 --seed 9000
    python benchmarks/ship.py grown/perfusion --unseen second/perfusion --unseen-sources "..." --task isles2017 ...

First a model of grown cases alone; then, from it, one model a fold without that fold's real cases, and one of all of
them, each by a recipe that keeps a share of the first one's weights (--tuning, --blend), or with some of the grown
cases still among the real ones (--beside). The card gets the scores of the folds, never of what a model has seen.
Without real cases the first model is the one that is shipped, scored on cases from elsewhere, such as those of a
generator with other heads and shapes (--unseen). What is there is not made again, so a run that was stopped goes on. On
a GPU take the recipe `modern` and longer budgets.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import brainsegnet
from brainsegnet.api.contenders import resize
from brainsegnet.api.exporting import export
from brainsegnet.api.folds import deal_folds
from brainsegnet.api.release import Unseen, release
from brainsegnet.inference.model import open_model
from brainsegnet.scans.datasets import find_cases
from brainsegnet.training.curriculum import RECIPES, TUNE, Recipe


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def train(
    data: Sequence[Path], out: Path, arguments: argparse.Namespace, recipe: Recipe, minutes: float, **options: object
) -> Path:
    """A model of these cases, or what there is of it, continued."""
    if (out / "done").exists():
        return out
    settings = brainsegnet.TrainOptions(
        recipe=recipe,
        budget=brainsegnet.Budget(minutes=minutes),
        seed=arguments.seed,
        licence=arguments.licence,
        sources=arguments.sources,
        sequences=tuple(arguments.sequences),
        validation=0,
        validations=0,
        resume=(out / "state.safetensors").exists(),
        **options,  # type: ignore[arg-type]
    )
    say(f"training {out}")
    brainsegnet.train(data, arguments.task, out, settings, brainsegnet.Watch(say, log))
    (out / "done").touch()
    return out


def log(record: object) -> None:
    step = getattr(record, "step", 0)
    if step % 100 == 0:
        say(f"step {step}: loss {getattr(record, 'loss', 0):.3f}, {getattr(record, 'minutes', 0):.1f} minutes")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grown", type=Path, nargs="*", help="folders of grown cases; none starts from nothing")
    parser.add_argument("--real", type=Path, nargs="+", default=())
    parser.add_argument("--unseen", type=Path, nargs="+", default=(), help="without --real: cases that it is scored on")
    parser.add_argument("--unseen-sources", default="", help="where those come from")
    parser.add_argument("--task", required=True)
    parser.add_argument("--sequences", nargs="*", default=())
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="thorough", choices=RECIPES, help="where a training starts from nothing")
    parser.add_argument("--tuning", default=TUNE.name, choices=RECIPES, help="where it starts from the grown cases")
    parser.add_argument("--divisor", type=int, help="so much narrower than the paper's; by default the recipe's width")
    parser.add_argument("--from", dest="start", type=Path, help="model that the training on grown cases starts from")
    parser.add_argument("--patch", type=int, nargs=3, help="sample (D, H, W) instead of the recipe's")
    parser.add_argument("--minutes", type=float, nargs=2, default=(120, 30), help="on grown cases, and on real ones")
    parser.add_argument("--blend", type=float, default=TUNE.blend, help="share of the model of grown cases in the mean")
    parser.add_argument("--beside", type=int, default=0, help="grown cases that the trainings on real ones keep")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--licence", required=True)
    parser.add_argument("--sources", required=True)
    arguments = parser.parse_args(argv)
    first, second = arguments.minutes
    if bool(arguments.real) == bool(arguments.unseen) or not (arguments.grown or arguments.real):
        parser.error("name --real cases, or grown ones and --unseen cases to score them on")
    recipe = RECIPES[arguments.recipe]
    if arguments.patch:
        recipe = recipe.model_copy(update={"patch": tuple(arguments.patch)})
    if arguments.divisor:
        recipe = resize(recipe, arguments.divisor)
    origin = {"start": arguments.start} if arguments.start else {}
    grown = arguments.work / "grown"
    start = train(arguments.grown, grown, arguments, recipe, first, **origin) if arguments.grown else None
    if start is not None and arguments.unseen:
        unseen = Unseen(arguments.unseen, arguments.unseen_sources)
        say(str(release(start, [], arguments.grown, arguments.out, say, unseen).card.training.scores))
        return
    if start is not None:
        recipe = RECIPES[arguments.tuning].model_copy(update={"blend": arguments.blend})
    names = [case.name for case in find_cases(arguments.real)]
    left = [case.name for case in find_cases(arguments.grown)][arguments.beside :]
    data = [*arguments.real, *arguments.grown]
    runs = []
    for number, fold in enumerate(deal_folds(names, arguments.folds, arguments.seed)):
        out = arguments.work / f"fold{number}"
        run = train(data, out, arguments, recipe, second, start=start, hold_out=fold, exclude=left)
        if not open_model(run).card.exports:
            export(run, arguments.real, say)
        runs.append(run)
    whole = train(data, arguments.work / "whole", arguments, recipe, second, start=start, exclude=left)
    say(str(release(whole, runs, arguments.real, arguments.out, say).card.training.subsets))


if __name__ == "__main__":
    main()
