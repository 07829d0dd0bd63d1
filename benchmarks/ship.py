"""Make the weights that the package carries: from simulated cases, then from real ones, scored by folds of patients.

    brainsegnet simulate simulated/tumour --realistic --cases 100
    python benchmarks/ship.py simulated/tumour --real FOLDER FOLDER --task brats2021 --work runs/tumour \
        --out src/brainsegnet/models/tumour --recipe thorough --minutes 40 8 --licence "..." --sources "..."

    brainsegnet simulate simulated/perfusion --stroke isles2017 --cases 40 --anatomy LABELS --shapes SHAPES
    brainsegnet simulate second/perfusion --stroke isles2017 --cases 8 --seed 9000
    python benchmarks/ship.py simulated/perfusion --unseen second/perfusion --unseen-sources "..." --task isles2017 ...

First a model of simulated cases alone; then, from it, one model a fold without that fold's real cases, and one of all
of them, each by a recipe that keeps a share of the first one's weights (--tuning, --weight-interpolation), or with some
of the simulated cases still among the real ones (--beside). The card gets the scores of the folds, never of what a
model has seen. Without real cases the first model is the one that is shipped, scored on cases from elsewhere, real ones
or those of a generator with other heads and shapes (--unseen). A --threshold other than 0.5 is found by
benchmarks/false_finds.py. What is there is not made again, so a run that was stopped goes on. On a GPU take the recipe
`modern` and longer budgets.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import brainsegnet
from brainsegnet.benchmark.models import resize
from brainsegnet.io.cases import find_cases
from brainsegnet.model.card import PresenceRule
from brainsegnet.model.store import LAST, open_model
from brainsegnet.training.export import export
from brainsegnet.training.recipes import FINETUNE, RECIPES, Recipe
from brainsegnet.training.split import deal_folds
from release.release import Unseen, release
from release.threshold import shift_threshold


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def train(
    data: Sequence[Path],
    out: Path,
    arguments: argparse.Namespace,
    recipe: Recipe,
    minutes: float | None,
    **options: object,
) -> Path:
    """A model of these cases, or what there is of it, continued."""
    if (out / "done").exists():
        return out
    shared = {"seed": arguments.seed, "licence": arguments.licence, "sources": arguments.sources}
    settings = brainsegnet.TrainOptions(
        recipe=recipe,
        minutes=minutes,
        sequences=tuple(arguments.sequences),
        validation=0,
        validations=0,
        resume=(out / "state.safetensors").exists(),
        **shared | options,
    )
    say(f"training {out}")
    brainsegnet.train(data, arguments.task, out, settings, Log())
    (out / "done").touch()
    return out


class Log(brainsegnet.Callback):
    """Writes sentences, and a line every hundred steps."""

    def on_message(self, text: str) -> None:
        """Write a sentence."""
        say(text)

    def on_progress(self, event: brainsegnet.ProgressEvent) -> None:
        """Write a line for every hundredth step."""
        if event.step is not None and event.step % 100 == 0:
            say(f"step {event.step}: loss {event.loss:.3f}, {event.minutes:.1f} minutes")


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "simulated", type=Path, nargs="*", help="folders of simulated cases; none starts from --from or nothing"
    )
    parser.add_argument("--real", type=Path, nargs="+", default=())
    parser.add_argument("--unseen", type=Path, nargs="+", default=(), help="without --real: cases that it is scored on")
    parser.add_argument("--unseen-sources", default="", help="where those come from")
    parser.add_argument("--task", required=True)
    parser.add_argument("--sequences", nargs="*", default=())
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="thorough", choices=RECIPES, help="where a training starts from nothing")
    parser.add_argument(
        "--tuning", default=FINETUNE.name, choices=RECIPES, help="where it starts from the simulated cases"
    )
    parser.add_argument("--divisor", type=int, help="so much narrower than the paper's; by default the recipe's width")
    parser.add_argument("--from", dest="start", type=Path, help="model that the first training starts from")
    parser.add_argument("--patch", type=int, nargs=3, help="sample (D, H, W) instead of the recipe's")
    parser.add_argument(
        "--small-lesion-power", type=float, help="power by which small lesions weigh more, instead of the recipe's"
    )
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rate of the first training")
    parser.add_argument(
        "--minutes", type=float, nargs=2, default=(120, 30), help="on simulated cases, and on real ones"
    )
    parser.add_argument(
        "--weight-interpolation",
        type=float,
        default=FINETUNE.weight_interpolation,
        help="share of the model of simulated cases in the mean",
    )
    parser.add_argument("--beside", type=int, default=0, help="simulated cases that the trainings on real ones keep")
    parser.add_argument("--simulate", type=int, help="cases simulated during the trainings on real ones, in memory")
    parser.add_argument("--refresh-every", type=int, help="steps after which a new one replaces the oldest")
    parser.add_argument("--anatomy", help="their anatomies, as for `brainsegnet train`")
    parser.add_argument("--steps", type=int, help="length of the trainings on real cases, instead of the minutes")
    parser.add_argument("--threshold", type=float, help="lesion probability from which on a voxel is called lesion")
    parser.add_argument("--presence", type=Path, help="JSON of benchmarks/presence.py, whose rule the model gets")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--licence", required=True)
    parser.add_argument("--sources", required=True, help="of all cases, and their terms")
    parser.add_argument("--simulated-sources", help="of the simulated ones alone, for the card of the first model")
    arguments = parser.parse_args(argv)
    changed = [name for name in ("patch", "small_lesion_power", "divisor") if getattr(arguments, name)]
    if not arguments.simulated and arguments.start and (changed or arguments.rate != 1):
        flag = [*changed, "rate"][0].replace("_", "-")
        parser.error(f"--{flag} is for a training on simulated cases or from nothing, and there is none")
    if bool(arguments.real) == bool(arguments.unseen) or not (arguments.simulated or arguments.real):
        parser.error("name --real cases, or simulated ones and --unseen cases to score them on")
    return arguments


def train_simulated(arguments: argparse.Namespace, recipe: Recipe) -> Path | None:
    """The model of simulated cases alone; without any the one to start from, or none."""
    if not arguments.simulated:
        return arguments.start
    sources = arguments.simulated_sources or arguments.sources
    work, minutes = arguments.work / "simulated", arguments.minutes[0]
    return train(arguments.simulated, work, arguments, recipe, minutes, start=arguments.start, sources=sources)


def threshold(run: Path, threshold: float | None) -> Path:
    """The model of a run that decides at another threshold, in a folder beside it."""
    if threshold is None:
        return run
    shifted = run.with_name(f"{run.name}-shifted")
    shift_threshold(run / LAST, shifted / LAST, threshold)
    return shifted


def train_real(arguments: argparse.Namespace, recipe: Recipe, start: Path | None) -> tuple[Path, list[Path]]:
    """The model of all real cases, and one a fold without some of them."""
    names = [case.name for case in find_cases(arguments.real)]
    left = [case.name for case in find_cases(arguments.simulated)][arguments.beside :]
    data = [*arguments.real, *arguments.simulated]
    minutes = None if arguments.steps else arguments.minutes[1]
    more = {"simulated": arguments.simulate, "refresh_every": arguments.refresh_every, "anatomy": arguments.anatomy}
    more |= {"steps": arguments.steps, "start": start, "exclude": left}
    runs = []
    for number, fold in enumerate(deal_folds(names, arguments.folds, arguments.seed)):
        out = arguments.work / f"fold{number}"
        run = train(data, out, arguments, recipe, minutes, hold_out=fold, **more)
        run = threshold(run, arguments.threshold)
        if not open_model(run).card.exports:
            export(run, arguments.real, Log())
        runs.append(run)
    whole = train(data, arguments.work / "whole", arguments, recipe, minutes, **more)
    return threshold(whole, arguments.threshold), runs


def choose_recipe(arguments: argparse.Namespace) -> Recipe:
    """Of a training that starts from nothing, or from `--from`, with what the arguments change."""
    recipe = RECIPES[arguments.recipe]
    wanted = {"patch": arguments.patch and tuple(arguments.patch), "small_lesion_power": arguments.small_lesion_power}
    given = {name: value for name, value in wanted.items() if value is not None}
    recipe = recipe.model_copy(update=given | {"learning_rate": arguments.rate * recipe.learning_rate})
    return resize(recipe, arguments.divisor) if arguments.divisor else recipe


def main(argv: Sequence[str] | None = None) -> None:
    arguments = read_arguments(argv)
    recipe = choose_recipe(arguments)
    start = train_simulated(arguments, recipe)
    if start is not None and arguments.unseen:
        unseen = Unseen(arguments.unseen, arguments.unseen_sources)
        shifted = threshold(start, arguments.threshold)
        say(str(release(shifted, [], arguments.simulated, arguments.out, say, unseen).card.training.scores))
        return
    if start is not None:
        recipe = RECIPES[arguments.tuning].model_copy(update={"weight_interpolation": arguments.weight_interpolation})
    whole, folds = train_real(arguments, recipe, start)
    rule = arguments.presence and PresenceRule(**json.loads(arguments.presence.read_text())["rule"])
    say(str(release(whole, folds, arguments.real, arguments.out, say, presence=rule).card.training.subsets))


if __name__ == "__main__":
    main()
