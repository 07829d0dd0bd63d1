"""Tables of what the shipped models reach: on cases they have not seen, with fewer sequences, in volumes."""

from collections.abc import Sequence
from statistics import median

from brainsegnet.metrics.table import Cell, Table, number_columns, text_columns
from brainsegnet.model.card import unfold_names
from documents.cells import (
    INTERVAL_NOTE,
    RANGE_NOTE,
    Generated,
    describe_means,
    dice_columns,
    name_regions,
    name_sequences,
    short_name,
    spread_note,
)
from documents.records import Record, read_card, read_result

ENHANCES_FROM_ML = 1.0
CHOSEN = "yes, in choice"
MOST_COMPARED = 12
"""`brainsegnet export` compares at most so many training cases."""


def headline() -> Generated:
    """All shipped models in one table, a row for each set of cases."""
    tumour, brats2015 = read_result("left-out-tumour"), read_result("shipped-tumour-brats2015")
    stroke = read_result("left-out-stroke")
    maps = name_sequences("+".join(read_card("perfusion").data["task"]["sequences"]))
    times = [read_result(f"shipped-{name}") for name in ("tumour-brats2021", "stroke-isles2022")]
    rows: list[list[Cell]] = [
        _headline_row("Tumour: FLAIR, T1, T1c, T2. BraTS 2021 and 2023, each left out", CHOSEN, tumour, times[0]),
        _headline_row("Tumour: FLAIR, T1c. BRATS 2015", "only in choice", brats2015, brats2015),
        _headline_row("Stroke: DWI, ADC. ISLES 2022, each left out", CHOSEN, stroke, times[1]),
        [f"Perfusion: {maps}. No real case", "", "not measured", None, None, None],
    ]
    words = text_columns("Model and cases", "Part in training or choice?")
    notes = [
        f"Mean Dice. {INTERVAL_NOTE} {RANGE_NOTE} Seconds: from files to file, with the model already open.",
        "Left out: scored by a model trained the same way without that case. "
        "Simulator and models were chosen by these scores, so expect less on other scans.",
        "One candidate for tumour was rejected by its scores on the BRATS 2015 cases. None was trained on them.",
    ]
    columns = number_columns("Whole lesion", "Core", "Enhancing", "Seconds", form=".2f")
    return Generated(Table([*words, *columns], rows, notes=notes), [tumour, stroke, brats2015, *times])


def _headline_row(label: str, part: str, scores: Record, times: Record) -> list[Cell]:
    """Cases with their number, means of up to three regions, and the median of the seconds."""
    means = describe_means(scores.data["dice"])
    seconds = median(one for row in times.data["seconds"].values() for one in row)
    return [f"{label}, n = {len(scores.data['dice'])}", part, *means, *[None] * (3 - len(means)), seconds]


def _by_case(record: Record, notes: Sequence[str]) -> Generated:
    """Dice of each case with its true volume in brackets, and the mean."""
    dice, volumes = record.data["dice"], record.data["true_ml"]
    rows: list[list[Cell]] = [
        [short_name(case), *(f"{dice[case][r]:.2f} ({_show_ml(volumes[case][r])})" for r in dice[case])]
        for case in sorted(dice)
    ]
    regions = next(iter(dice.values()))
    rows.append([f"mean, n = {len(dice)}", *describe_means(dice)])
    columns = dice_columns("Case", regions)
    after = ["Dice of each case, with its true volume in ml in round brackets.", spread_note(len(dice)), *notes]
    return Generated(Table(columns, rows, notes=after), [record])


def _show_ml(volume: float) -> str:
    return f"{volume:.0f}" if volume >= 10 else f"{volume:.1f}"


def tumour_left_out() -> Generated:
    """Eleven cases, each scored by a model trained without it."""
    return _by_case(read_result("left-out-tumour"), ["These cases took part in choosing simulator and model."])


def tumour_brats2015() -> Generated:
    """Four cases with FLAIR and T1c that the model was not trained on."""
    return _by_case(read_result("shipped-tumour-brats2015"), ["None of these cases was trained on."])


def stroke_left_out() -> Generated:
    """Three cases, each scored by a model trained without it."""
    return _by_case(read_result("left-out-stroke"), ["These cases took part in choosing simulator and model."])


def tumour_by_enhancement() -> Generated:
    """The eleven cases in two groups by the true volume of enhancing tissue."""
    record = read_result("left-out-tumour")
    dice, volumes = record.data["dice"], record.data["true_ml"]
    enhancing = [case for case in dice if volumes[case]["enhancing"] >= ENHANCES_FROM_ML]
    groups = {
        f"{ENHANCES_FROM_ML:g} ml or more": enhancing,
        f"less than {ENHANCES_FROM_ML:g} ml": [case for case in dice if case not in enhancing],
    }
    rows: list[list[Cell]] = [
        [name, len(cases), *describe_means({case: dice[case] for case in cases})] for name, cases in groups.items()
    ]
    regions = next(iter(dice.values()))
    columns = [*text_columns("True enhancing tissue"), *number_columns("n", *name_regions(regions))]
    spreads = dict.fromkeys(spread_note(len(cases)) for cases in groups.values())
    notes = [*spreads, "These cases took part in choosing simulator and model."]
    return Generated(Table(columns, rows, notes=notes), [record])


def tumour_decisions() -> Generated:
    """The eleven cases with and without what follows the network, and those of the parent."""
    record = read_result("left-out-tumour")
    ways = {
        "with the decision, as segment gives it": "dice",
        "without the decision": "dice_undecided",
        "without it, all components kept": "dice_all_kept",
        "the parent, without it, all components kept": "dice_simulated",
    }
    rows: list[list[Cell]] = [[way, *describe_means(record.data[key])] for way, key in ways.items()]
    cases = record.data["dice"]
    notes = [
        f"Mean Dice, n = {len(cases)} cases, each left out. {INTERVAL_NOTE}",
        "The decision was fitted to simulated gliomas alone. These cases took part in choosing simulator and model.",
    ]
    return Generated(Table(dice_columns("Result", next(iter(cases.values()))), rows, notes=notes), [record])


def _subsets(model: str, subsets: Sequence[str], heading: str, notes: Sequence[str]) -> Generated:
    """Mean Dice with parts of the sequences, from the card."""
    card = read_card(model)
    training = card.data["training"]
    rows: list[list[Cell]] = [[name_sequences(s), *training["subsets"][s].values()] for s in subsets]
    cases = len(unfold_names(training["held_out"]))
    columns = dice_columns(heading, training["scores"])
    return Generated(Table(columns, rows, notes=[f"Mean Dice, n = {cases}.", *notes]), [card])


def tumour_subsets() -> Generated:
    """All fifteen subsets of four sequences."""
    notes = ["Each case is scored by a model trained without it.", "Where a mask is rightly empty, Dice is 1."]
    return _subsets("tumour", list(read_card("tumour").data["training"]["subsets"]), "Sequences", notes)


def stroke_subsets() -> Generated:
    """DWI, ADC, and both."""
    subsets = list(read_card("stroke").data["training"]["subsets"])
    return _subsets("stroke", subsets, "Sequences", ["Each case is scored by a model trained without it."])


def perfusion_subsets() -> Generated:
    """All six maps, each one missing, and each one alone."""
    subsets = read_card("perfusion").data["training"]["subsets"]
    total = max(subset.count("+") for subset in subsets)
    shown = [subset for subset in subsets if subset.count("+") in (total, total - 1, 0)]
    return _subsets("perfusion", shown, "Maps", ["All of them are simulated cases."])


def perfusion_all_subsets() -> Generated:
    """All 63 subsets of six maps, the best first."""
    subsets = read_card("perfusion").data["training"]["subsets"]
    best_first = sorted(subsets, key=lambda subset: -subsets[subset]["lesion"])
    return _subsets("perfusion", best_first, "Maps", ["All of them are simulated cases."])


def tumour_components() -> Generated:
    """What dropping connected components gives on unseen cases."""
    record = read_result("components-shipped")
    return Generated(_dropping(record, [f"n = {record.data['cases']} cases, each left out."]), [record])


def _dropping(record: Record, notes: Sequence[str]) -> Table:
    dice, margin = record.data["dice"], record.data["margin"]
    ways = {
        "all kept": dice["null"],
        "dropped, margin from the other patients": record.data["left_out"],
        f"dropped, margin {margin:g} from all patients": dice[f"{margin:g}"],
    }
    rows: list[list[Cell]] = [[way, *scores.values()] for way, scores in ways.items()]
    why = "The last row is optimistic: its margin was chosen on the same cases."
    return Table(dice_columns("Components", dice["null"]), rows, notes=["Mean Dice.", *notes, why])


def tumour_tta() -> Generated:
    """One pass against the mean over mirror images."""
    one, four, cost = (read_result(name) for name in ("components-shipped", "tta-tumour", "tta-cost"))
    rows: list[list[Cell]] = [
        ["one pass", *one.data["left_out"].values(), cost.data["arg_max_seconds"]],
        ["mirror images too (--tta)", *four.data["left_out"].values(), cost.data["mirrored_seconds"]],
    ]
    notes = [
        f"Mean Dice, n = {one.data['cases']} cases, each left out.",
        "The margin of dropped components comes from the other patients.",
        "Seconds: median of the network alone.",
    ]
    columns = dice_columns("Prediction", one.data["left_out"], "s")
    return Generated(Table(columns, rows, notes=notes), [one, four, cost])


def tumour_intervals() -> Generated:
    """How many volume intervals hold the true volume, and how wide they are."""
    records = {"11 left out": read_result("intervals-tumour"), "4 of BRATS 2015": read_result("intervals-brats2015")}
    rows: list[list[Cell]] = []
    for cases, record in records.items():
        count = len(record.data["ml"])
        for region, found in record.data["regions"].items():
            held = f"{round(found['held'] * count)} of {count}"
            rows.append([cases, region, held, found["width"], found["error"]])
    notes = [
        "Held: the interval holds the true volume, up to 1 ml.",
        "Of the 11, the intervals come from the other patients, so their rank sets how many are held.",
        "Width, and error of the volume itself: medians as shares of the true volume, over cases with more than 1 ml.",
    ]
    columns = [*text_columns("Cases", "Region"), *number_columns("Held", "Width", "Error", form=".2f")]
    return Generated(Table(columns, rows, notes=notes), list(records.values()))


def int8() -> Generated:
    """Change of Dice by computing in 8 bits."""
    cards = [read_card(model) for model in ("tumour", "stroke", "perfusion")]
    rows: list[list[Cell]] = []
    for card in cards:
        export = card.data["exports"]["int8"]
        count = min(len(unfold_names(export["cases"])), MOST_COMPARED)
        for region, change in export["dice_change"].items():
            rows.append([card.data["name"], count, region, f"{change:+.3f}"])
    columns = [*text_columns("Model"), *number_columns("n"), *text_columns("Region"), *number_columns("Change of Dice")]
    notes = ["Mean change from 32-bit floats, on training cases."]
    return Generated(Table(columns, rows, notes=notes), cards)
