"""Tables of cohorts: throughput, restarts, what Ray costs, the pages, and a simulated million of cases."""

from typing import Any

from brainsegnet.metrics.table import Cell, Table, number_columns, text_columns
from documents.cells import Generated
from documents.records import read_result


def million_cases() -> Generated:
    """Hours by nodes: undisturbed, with a slow disk, with failures, and with all cases shared."""
    record = read_result("simulated-cohort")
    rows: dict[tuple[Any, ...], dict[str, Any]] = {
        (row["nodes"], row["cores_of_a_node"], row["disk_gb_a_second"], row["hours_between_failures"], row["how"]): row
        for row in record.data["rows"]
    }
    sizes = sorted({(row["nodes"], row["cores_of_a_node"]) for row in rows.values()})
    table: list[list[Cell]] = []
    costs = []
    for nodes, cores in sizes:
        calm, slow, poor, shared = (
            rows[nodes, cores, *rest]
            for rest in ((10, None, "parts"), (1, None, "parts"), (10, 24, "parts"), (10, None, "shared"))
        )
        costs.append(poor["cost"])
        hours = [row["hours"] for row in (calm, slow, poor, shared)]
        table.append([f"{nodes:,} of {cores} cores", *hours, f"{poor['core_hours']:,.0f}"])
    most = max(row["repeated_percent"] for key, row in rows.items() if key[2:] == (10, 24, "parts"))
    taken = record.data["assumptions"]
    notes = [
        f"{taken['cases']:,} prepared scans of {taken['core_seconds_a_case']:.2f} core seconds and "
        f"{taken['case_bytes'] / 1e6:g} MB each. A process keeps {100 * taken['busy_share']:.0f} % of two cores busy, "
        f"and takes {taken['start']:.1f} s to start.",
        "Parts unless it says shared; the disk gives 10 GB a second unless it says 1 GB. Failing: each node once in 24 "
        f"hours on average. At most {most:.3f} % of the work was repeated.",
        f"Core hours: with failures, 10 GB a second. At {taken['price_of_a_core_hour']:g} of any currency a core hour, "
        f"all cases cost {min(costs):.0f} to {max(costs):.0f}.",
    ]
    columns = [
        *text_columns("Nodes"),
        *number_columns("Hours", "Hours, 1 GB a second", "Hours, failing", "Hours, shared", form=".2f"),
        *text_columns("Core hours"),
    ]
    return Generated(Table(columns, table, notes=notes), [record])


def cohort_throughput() -> Generated:
    """Rate, share of the network, memory and open files of `cohort run`."""
    record = read_result("cohort-throughput")
    told = {"tiny": "tiny phantoms, 24 x 40 x 40", "full": "prepared, 155 x 240 x 240"}
    table: list[list[Cell]] = []
    for size, run in record.data["runs"].items():
        low, high = run["open_files"]
        share = f"{100 * run['network_busy']:.0f} %"
        table.append(
            [
                told[size],
                f"{run['cases']:,}",
                f"{run['cases_per_hour']:,}",
                share,
                run["peak_mb"],
                f"{run['kb_per_case']:.1f} ± {run['kb_per_case_standard_error']:.2g}",
                f"{low} to {high}",
            ]
        )
    columns = [
        *text_columns("Cases", "n", "Cases an hour", "Network busy"),
        *number_columns("Peak, MiB"),
        *text_columns("Memory, kB a case", "Open files"),
    ]
    notes = [
        f"Model {record.data['model']}, one process. {record.data['distinct_cases']} different cases of each size,"
        " under many names and read from memory.",
        "Network busy: share of the time from the first result to the last. kB a case: slope of the memory after the "
        "first fifth of the cases, and its standard error, too small because the looks are not independent.",
    ]
    return Generated(Table(columns, table, notes=notes), [record])


def cohort_kills() -> Generated:
    """How often each disturbance was tried, and what it cost."""
    record = read_result("killed-cohorts")
    table: list[list[Cell]] = []
    for way, told in _DISTURBANCES.items():
        found = record.data["ways"][way]
        twice = sum(one["computed twice"] for one in found)
        table.append([told, len(found), twice / len(found)])
    columns = [
        *text_columns("Interruption"),
        *number_columns("Trials", form="d"),
        *number_columns("Cases computed twice, mean", form=".2f"),
    ]
    notes = [
        f"{record.data['cases']} tiny simulated cases, a threshold in place of the network. Kills and signals come at "
        "a random moment, the others in a random case.",
        "After each, ledger and label maps equal those of an undisturbed run, and nothing unfinished is left. Where a "
        "case hangs, ends its process or raises an exception, that case alone fails. In a process with exceptions from "
        "a case on, at most three cases fail.",
        "Disk full: a limit on the size of files. Never ends: limit of 0.5 minutes instead of 60. A lost node is given "
        "up after 3 seconds instead of 60.",
    ]
    return Generated(Table(columns, table, notes=notes), [record])


def ray_overhead() -> Generated:
    """Seconds a case and of the start, with processes and with Ray."""
    record = read_result("ray-overhead")
    medians = record.data["medians of seconds, by kind and workers"]
    table: list[list[Cell]] = []
    for kind, told in (
        ("processes", "processes of this machine"),
        ("ray, 8 cases", "Ray, eight cases at a time"),
        ("ray, 1 case", "Ray, one case at a time"),
    ):
        for workers in (1, 2):
            found = medians[f"{kind}, {workers}"]
            table.append([told, workers, found["a case"], found["start"], found["all"]])
    columns = [
        *text_columns("Engine"),
        *number_columns("Workers", form="d"),
        *number_columns("s a case", form=".3f"),
        *number_columns("First result, s", "All, s", form=".1f"),
    ]
    notes = [
        f"{record.data['cases']} tiny simulated cases, a threshold in place of the network; median of "
        f"{record.data['rounds']} rounds in random order.",
        "The command gives Ray eight cases at a time, fewer in small cohorts.",
    ]
    return Generated(Table(columns, table, notes=notes), [record])


def cohort_pages() -> Generated:
    """Seconds, memory and bytes of `cohort report`."""
    record = read_result("cohort-page")
    table: list[list[Cell]] = []
    for size in ("tiny", "full"):
        shape = " x ".join(map(str, record.data[size]["shape"]))
        for row in record.data[size]["reports"]:
            most = max(row["drawn"]["memory_mb"], row["kept"]["memory_mb"])
            seconds = [row["drawn"]["seconds"], row["kept"]["seconds"]]
            kilobytes = [row[name] / 1e3 for name in ("bytes_a_thumbnail", "first_page")]
            table.append([shape, f"{row['cases']:,}", *seconds, most, *kilobytes])
    columns = [
        *text_columns("Voxels", "Cases"),
        *number_columns("First report, s", "Again, s", form=".0f"),
        *number_columns("Peak, MiB", form=".0f"),
        *number_columns("Thumbnail, kB", form=".1f"),
        *number_columns("First page, kB", form=".0f"),
    ]
    notes = [
        f"Copies of a few results with other volumes, warnings and failures; {record.data['threads']} threads. Again: "
        "the thumbnails are there already.",
    ]
    return Generated(Table(columns, table, notes=notes), [record])


_DISTURBANCES = {
    "worker": "kill -9 of the process that segments",
    "run": "kill -9 of the command",
    "stop": "Ctrl-C",
    "end": "SIGTERM",
    "write": "kill -9 in the middle of writing a label map",
    "disk": "disk full",
    "hang": "a case that never ends",
    "crash": "a case that ends its process",
    "fault": "an unexpected exception in a case",
    "broken": "a process with exceptions from a case on",
    "ray-actor": "Ray: kill -9 of an actor",
    "ray-raylet": "Ray: kill -9 of the second node",
    "ray-driver": "Ray: kill -9 of the process that uses it",
    "ray-hang": "Ray: a case that never ends",
    "ray-crash": "Ray: a case that ends its actor",
    "ray-fault": "Ray: an unexpected exception in a case",
    "ray-broken": "Ray: an actor with exceptions from a case on",
}
