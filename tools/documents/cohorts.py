"""The table of the simulated cohort of a million cases."""

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
    most = max(row["repeated_percent"] for row in rows.values())
    taken = record.data["assumptions"]
    notes = [
        f"{taken['cases']:,} prepared scans of {2 * taken['seconds']:.2f} core seconds and "
        f"{taken['case_bytes'] / 1e6:g} MB each; two cores a process; {taken['start']:.1f} s to start one.",
        "Parts unless it says shared; the disk gives 10 GB a second unless it says 1 GB. Failing: each node once in 24 "
        f"hours on average. At most {most:.3f} % of the work was repeated.",
        f"Core hours: with failures. If a core hour costs {taken['price_of_a_core_hour']:g}, all cases cost "
        f"{min(costs):.0f} to {max(costs):.0f}.",
    ]
    columns = [
        *text_columns("Nodes"),
        *number_columns("Hours", "Hours, 1 GB a second", "Hours, failing", "Hours, shared", form=".2f"),
        *text_columns("Core hours"),
    ]
    return Generated(Table(columns, table, notes=notes), [record])
