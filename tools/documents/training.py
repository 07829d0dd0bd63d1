"""Tables of trainings: few cases, fine-tuning, other networks, and the parts of the recipe."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from brainsegnet.metrics.table import Cell, Table, number_columns, text_columns
from documents.cells import (
    Generated,
    Scores,
    columns_of,
    describe_means,
    dice_of,
    name_regions,
    short_name,
    spread_note,
    triple,
)
from documents.records import Record, read_result

NETWORKS = {
    "brainsegnet": "Brain SegNet, quarter width",
    "brainsegnet-half": "Brain SegNet, half width",
    "brainsegnet-full": "Brain SegNet, full width",
    "unet": "UNet",
    "segresnet": "SegResNet",
    "dynunet": "DynUNet",
    "vnet": "V-Net",
}
PARTS = {
    "brainsegnet": "quick, as it is",
    "without curriculum": "without curriculum",
    "without focal": "without focal loss",
    "without augmentation": "without augmentation",
    "linear refinement": "refinement without batch norm and ReLU",
    "stride 2x2x2": "strides (2, 2, 2)",
    "plain training": "trained without the collapse",
}
STAGES = {
    "curriculum": "curriculum with focal loss",
    "no-focal": "curriculum, no focal loss",
    "augmented": "augmentation throughout, no focal loss",
    "plain": "no augmentation, no focal loss",
}
ORIGINS = {
    "grown alone": "simulated alone",
    "simulated alone": "simulated alone",
    "real alone": "real alone",
    "grown, then real": "simulated, then real",
    "simulated, then real": "simulated, then real",
}


def gather(records: Iterable[Record], origins: Sequence[str]) -> dict[tuple[str, str], dict[str, dict[str, float]]]:
    """Dice by case of all folds together, by number of real cases and origin; only these origins."""
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for record in records:
        minutes = record.data["settings"]["budget"]["minutes"]
        for run in record.data["runs"]:
            origin, count = ORIGINS[run["origin"]], str(run["cases"])
            if origin not in origins:
                continue
            trained = f"{origin}, {minutes:g} min" if run["trained"] else origin
            found.setdefault((count, trained), {}).update(dice_of(run["scores"]))
    return found


def few_shot_rows(groups: Mapping[tuple[str, str], Scores]) -> list[list[Cell]]:
    """A row for each number of real cases and origin, fewest cases first."""
    ordered = sorted(groups, key=lambda key: (key[0] == "all", key[0], key[1]))
    return [[key[0], key[1], *describe_means(groups[key])] for key in ordered]


def tumour_few_shot() -> Generated:
    """One, two, four or all real cases, with simulated cases before them or without."""
    real, both = read_result("few-shot-2-minutes"), read_result("few-shot-simulated-2-minutes")
    long = read_result("few-shot-real-55-minutes")
    groups = gather([real, long], ["real alone"]) | gather([both], ["simulated alone", "simulated, then real"])
    return _few_shot(groups, [real, both, long], ["all: the 7 or 8 cases outside the fold."])


def stroke_few_shot() -> Generated:
    """One or two real cases of stroke, with simulated cases before them or without."""
    record = read_result("few-shot-stroke-1-minute")
    return _few_shot(gather([record], list(dict.fromkeys(ORIGINS.values()))), [record], [])


def _few_shot(groups: Mapping[tuple[str, str], Scores], records: Sequence[Record], more: Sequence[str]) -> Generated:
    scores = next(iter(groups.values()))
    columns = [*text_columns("Real cases", "Trained on"), *number_columns(*name_regions(next(iter(scores.values()))))]
    notes = [
        f"Mean Dice, n = {len(scores)} cases, each tested by a model that did not see it. One seed.",
        spread_note(len(scores)),
        *more,
        "All sequences, 32-bit floats, all components kept.",
    ]
    return Generated(Table(columns, few_shot_rows(groups), notes=notes), records)


def finetune_brats2015() -> Generated:
    """The tumour model as it is, fine-tuned on three cases, and a training from the start."""
    shipped, tuned, quick = (read_result(n) for n in ("shipped-tumour-brats2015", "tune-2-minutes", "quick-15-minutes"))
    ways: dict[str, Scores] = {
        "tumour as it is": shipped.data["dice"],
        "fine-tuned, 2 min": dice_of(tuned.data["cases"]),
        "quick from the start, 15 min": _dice_of_runs(quick),
    }
    rows: list[list[Cell]] = [
        [short_name(case), *(triple(way[case].values()) for way in ways.values())]
        for case in sorted(shipped.data["dice"])
    ]
    means = (triple(sum(column) / len(column) for column in columns_of(way)) for way in ways.values())
    rows.append([f"mean, n = {len(rows)}", *means])
    notes = [
        "Dice of whole / core / enhancing. One seed.",
        "The two trained models learnt from the other three cases. The cases had a small part in choosing tumour.",
    ]
    table = Table([*text_columns("Case"), *number_columns(*ways)], rows, notes=notes)
    return Generated(table, [shipped, tuned, quick])


def _dice_of_runs(record: Record) -> dict[str, dict[str, float]]:
    return dice_of({run["case"]: run["scores"] for run in record.data["runs"]})


def quick_15_minutes() -> Generated:
    """Each BRATS 2015 case tested after a training of fifteen minutes on the other three."""
    record = read_result("quick-15-minutes")
    scores, steps = _dice_of_runs(record), {run["case"]: run["steps"] for run in record.data["runs"]}
    rows: list[list[Cell]] = [[short_name(case), steps[case], *scores[case].values()] for case in sorted(scores)]
    rows.append([f"mean, n = {len(rows)}", None, *describe_means(scores)])
    regions = name_regions(next(iter(scores.values())))
    columns = [*text_columns("Tested"), *number_columns("Steps", *regions, form=".2f")]
    notes = ["Dice after 15 minutes on the other three cases. One seed.", spread_note(len(scores))]
    return Generated(Table(columns, rows, notes=notes), [record])


def benchmark_brats2015(result: str) -> Generated:
    """Networks trained for two minutes on three cases, with one seed or several."""
    record = read_result(result)
    rows: list[list[Cell]] = []
    (seeds,) = {1 + len(model.get("repeats", ())) for model in record.data["models"].values()}
    for name, model in record.data["models"].items():
        spreads = [f" ± {figures['seed_sd']:.2f}" if seeds > 1 else "" for figures in model["dice"].values()]
        means = describe_means(_mean_over_seeds(model))
        cells = [f"{mean}{spread}" for mean, spread in zip(means, spreads, strict=True)]
        rows.append([NETWORKS[name], model["parameters"] / 1e6, f"{model['steps']:.0f}", *cells])
    count, regions = _cases_and_regions(record)
    several = f"; each case counts with its mean over {seeds} seeds." if seeds > 1 else ". One seed."
    columns = [
        *text_columns("Network"),
        *number_columns("Million weights", "Steps", *name_regions(regions), form=".1f"),
    ]
    notes = [
        f"Mean Dice, n = {count} cases, each tested after training on the other three{several}",
        spread_note(count),
        *(["±: standard deviation of the mean over the seeds."] if seeds > 1 else []),
        "At a quarter of the width the network is what the recipe quick takes for so few cases.",
        "No difference is significant: four cases cannot give p below 0.125.",
    ]
    return Generated(Table(columns, rows, notes=notes), [record])


def _mean_over_seeds(model: Mapping[str, Any]) -> Scores:
    seeds = [dice_of(cases) for cases in (model["cases"], *model.get("repeats", ()))]
    return {
        case: {region: fmean(seed[case][region] for seed in seeds) for region in regions}
        for case, regions in seeds[0].items()
    }


def benchmark_four_sequences() -> Generated:
    """Networks and widths after two minutes of training, three folds of eleven cases."""
    record = read_result("against-four-sequences")
    models = record.data["models"]
    rows: list[list[Cell]] = [
        [label, models[name]["parameters"] / 1e6, *describe_means(dice_of(models[name]["cases"]))]
        for name, label in NETWORKS.items()
        if name in models
    ]
    count, regions = _cases_and_regions(record)
    columns = [*text_columns("Network"), *number_columns("Million weights", *name_regions(regions), form=".1f")]
    notes = [f"Mean Dice, n = {count} cases, in three folds by patient. One seed.", spread_note(count)]
    return Generated(Table(columns, rows, notes=notes), [record])


def ablation() -> Generated:
    """The recipe quick without one part at a time."""
    record = read_result("ablation-120-steps")
    models = record.data["models"]
    rows: list[list[Cell]] = [
        [label, *describe_means(dice_of(models[name]["cases"])), models[name]["samples_per_second"]]
        for name, label in PARTS.items()
    ]
    count, regions = _cases_and_regions(record)
    columns = [*text_columns("Variant"), *number_columns(*name_regions(regions), "Samples/s", form=".1f")]
    notes = [
        f"Mean Dice, n = {count} cases in two folds, 120 steps. One seed.",
        spread_note(count),
        "No difference is significant: four cases cannot give p below 0.125.",
    ]
    return Generated(Table(columns, rows, notes=notes), [record])


def curriculum_ablation() -> Generated:
    """Curriculum and focal loss, on against off."""
    record = read_result("ablation-200-steps")
    rows, count = [], 0
    for variant, label in STAGES.items():
        cases = {run["case"]: run["scores"] for run in record.data["runs"] if run["variant"] == variant}
        rows.append([label, *describe_means(dice_of(cases))])
        count = len(cases)
    regions = name_regions(record.data["runs"][0]["scores"])
    notes = [f"Mean Dice, n = {count} cases, 200 steps. One seed.", spread_note(count)]
    return Generated(Table([*text_columns("Training"), *number_columns(*regions)], rows, notes=notes), [record])


def _cases_and_regions(record: Record) -> tuple[int, Sequence[str]]:
    cases: Mapping[str, Any] = next(iter(record.data["models"].values()))["cases"]
    return len(cases), list(next(iter(cases.values())))
