"""Tables of seconds and memory: scans, training steps, slabs, simulated cases, and the machine's own rate."""

from collections.abc import Mapping, Sequence
from math import prod
from statistics import median
from typing import Any

from brainsegnet.metrics.table import Cell, Table, number_columns, text_columns
from documents.cells import Generated, triple
from documents.records import Record, read_result

NETWORKS = {
    "compact": "Brain SegNet, quarter width",
    "half": "Brain SegNet, half width",
    "full": "Brain SegNet, full width",
    "segresnet-our-engine": "SegResNet, same engine",
    "unet-our-engine": "UNet, same engine",
    "dynunet-our-engine": "DynUNet, same engine",
    "segresnet-as-used": "SegResNet, sliding window in torch",
    "unet-as-used": "UNet, sliding window in torch",
    "dynunet-as-used": "DynUNet, sliding window in torch",
    "full-plain-torch": "Brain SegNet in torch, without the collapse",
}
ARITHMETIC = {"int8": "8 bits", "bf16": "bf16", "float": "32-bit floats"}
WIDTHS = {"compact": "brainsegnet", "half": "brainsegnet-half", "full": "brainsegnet-full"}
"""Widths by their name in `benchmarks/speed.py`, to that in `benchmark run`."""
PADDED_BOX = (136, 184, 136)
"""Voxels of the brain of the timed BraTS scan, padded as the network needs them."""
SHIPPED = {
    "tumour-brats2021": ("tumour", "BraTS, four sequences"),
    "tumour-brats2015": ("tumour", "BRATS 2015, FLAIR and T1c"),
    "stroke-isles2022": ("stroke", "ISLES 2022, DWI and ADC"),
}


def speed_shipped() -> Generated:
    """Seconds from files to file of the shipped models."""
    records, rows = [], []
    for name, (model, scans) in SHIPPED.items():
        record = read_result(f"shipped-{name}")
        seconds = [one for case in record.data["seconds"].values() for one in case]
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        rows.append([model, scans, len(record.data["seconds"]), median(seconds), spread])
        records.append(record)
    columns = [*text_columns("Model", "Scans"), *number_columns("n", "Median, s", "Range, s", form=".2f")]
    runs = len(next(iter(records[0].data["seconds"].values())))
    notes = [f"From files to file, 8 bits, {runs} runs of each scan, with the model already open."]
    return Generated(Table(columns, rows, notes=notes), records)


def find_time(results: Mapping[str, Any], network: str, arithmetic: str) -> Mapping[str, Any] | None:
    """What was measured of a network; in torch there are floats alone, whose name needs no ending."""
    alone = results.get(network) if arithmetic == "float" else None
    found: Mapping[str, Any] | None = results.get(f"{network}-{arithmetic}", alone)
    return found


def _networks(name: str, notes: Sequence[str]) -> Generated:
    """Seconds and memory of one scan, networks by arithmetic."""
    record = read_result(name)
    results = record.data["results"]
    forms = [form for form in ARITHMETIC if any(key.endswith(f"-{form}") for key in results)]
    rows: list[list[Cell]] = []
    for network, label in NETWORKS.items():
        found = [find_time(results, network, form) for form in forms]
        if any(found):
            rows.append([label, *(_show_time(one) if one else None for one in found)])
    columns = [*text_columns("Network"), *number_columns(*(ARITHMETIC[form] for form in forms))]
    after = [
        "Seconds from files to file, median of three runs; in brackets the peak memory in GB.",
        "One BraTS scan of four sequences, 2 threads, random weights.",
        "Same engine: OpenVINO on the box of the brain, as for Brain SegNet.",
        *notes,
    ]
    return Generated(Table(columns, rows, notes=after), [record])


def _show_time(found: Mapping[str, Any]) -> str:
    seconds = median(found["seconds"])
    return f"{seconds:.{0 if seconds >= 30 else 1 if seconds >= 10 else 2}f} ({found['peak_bytes'] / 1e9:.1f})"


def speed_vnni() -> Generated:
    """With units for 8-bit products."""
    notes = [
        "Sliding window: MONAI's, 128x128x128 voxels, overlap 0.5, over the whole volume.",
        "What takes longer than 45 s was timed once.",
    ]
    return _networks("speed-real", notes)


def speed_amx() -> Generated:
    """With matrix units for 8 bits and bf16."""
    return _networks("speed-amx", [])


def speed_avx2() -> Generated:
    """With neither."""
    return _networks("speed-avx2", [])


def speed_isles() -> Generated:
    """Seconds for a scan of the size of ISLES, on two processors."""
    records = [read_result("speed-isles"), read_result("speed-isles-avx2")]
    rows: list[list[Cell]] = []
    for record in records:
        for network in ("compact", "full"):
            found = [find_time(record.data["results"], network, form) for form in ("int8", "float")]
            processor = record.machine.partition(" with ")[2]
            rows.append([NETWORKS[network], processor, *(_show_time(one) if one else None for one in found)])
    columns = [*text_columns("Network", "Processor"), *number_columns(ARITHMETIC["int8"], ARITHMETIC["float"])]
    notes = [
        "Seconds from files to file, median of three runs; in brackets the peak memory in GB.",
        "A simulated scan of 24x192x192 voxels, six maps, 2 threads, random weights.",
    ]
    return Generated(Table(columns, rows, notes=notes), records)


def floor() -> Generated:
    """How near the network is to the rate at which the machine multiplies matrices."""
    times, networks = read_result("speed-real"), read_result("against-four-sequences")
    rows: list[list[Cell]] = []
    for width in ("full", "half", "compact"):
        operations = networks.data["models"][WIDTHS[width]]["multiply_adds_per_voxel"]
        for form in ("float", "int8"):
            least = operations * prod(PADDED_BOX) / times.data["multiply_adds_per_second"][form]
            taken = median(times.data["results"][f"{width}-{form}"]["compute"])
            label = f"{NETWORKS[width].split(', ')[1]}, {ARITHMETIC[form]}"
            rows.append([label, f"{operations:,.0f}", least, taken, f"{100 * least / taken:.0f} %"])
    headings = number_columns("Multiply-adds a voxel", "Floor, s", "Measured, s", "Share", form=".2f")
    box = "x".join(map(str, PADDED_BOX))
    notes = [
        "Floor: multiply-adds divided by the rate of OpenVINO for matrices of 2048x2048 in the same run.",
        f"One BraTS scan, {box} voxels after padding. Measured: network and preparation of its input.",
    ]
    return Generated(Table([*text_columns("Brain SegNet"), *headings], rows, notes=notes), [times, networks])


def training_step() -> Generated:
    """Seconds of a training step in bf16 and in floats."""
    records = [read_result("step"), read_result("step-avx512-bf16")]
    rows: list[list[Cell]] = []
    for record in records:
        processor = record.machine.partition(" with ")[2]
        for width, found in record.data["seconds"].items():
            floats, halves = median(found["float32"]), median(found["bf16"])
            rows.append([f"{width}, {processor}", floats, halves, f"{floats / halves:.1f}"])
    columns = [*text_columns("Width, processor"), *number_columns("Floats, s", "bf16, s", "Times as fast", form=".2f")]
    counts = [len(next(iter(record.data["seconds"].values()))["bf16"]) for record in records]
    notes = [f"Median of {counts[0]} and of {counts[1]} steps, two samples of 24x96x96 voxels."]
    return Generated(Table(columns, rows, notes=notes), records)


def seams() -> Generated:
    """One pass against the paper's slabs, and against slabs that overlap."""
    record = read_result("seams")
    rows: list[list[Cell]] = []
    for case, found in record.data.items():
        for way, dice in found["dice"].items():
            rows.append([case, way, triple(dice.values()), found["voxels_changed"].get(way, 0)])
    shares = [found["share_of_lesion_changed_by_distance"] for found in record.data.values()]
    at_seam, beside = (" and ".join(f"{100 * share[key]:.0f} %" for share in shares) for key in ("0 to 0", "1 to 2"))
    columns = [*text_columns("Case", "Computed in"), *number_columns("Whole / core / enhancing", "Labels changed")]
    notes = [
        f"At a seam, slabs of 31 change {at_seam} of the lesion's labels.",
        f"One or two slices away they change {beside}, and from eight slices on none.",
        "One model, two cases: the table compares ways to compute, not models.",
    ]
    return Generated(Table(columns, rows, notes=notes), [record])


def generator() -> Generated:
    """Seconds for a simulated case."""
    gliomas, strokes = read_result("generator-cpu"), read_result("generator-strokes")
    rows: list[list[Cell]] = [_generator_row("glioma", gliomas), _generator_row("stroke", strokes)]
    columns = [*text_columns("Simulated", "Anatomy"), *number_columns("Threads", "n", "s a case", form=".1f")]
    notes = ["Mean over the cases, kept in memory. On a GPU: not measured yet."]
    return Generated(Table(columns, rows, notes=notes), [gliomas, strokes])


def _generator_row(lesion: str, record: Record) -> list[Cell]:
    data = record.data
    anatomy = {"procedural": "procedural", "synthseg_labels": "SynthSeg label maps"}[data["anatomy"]]
    threads = int(data["device"].split(", ")[1].split()[0])
    return [lesion, anatomy, threads, data["cases"], data["seconds_per_case_in_memory"]]
