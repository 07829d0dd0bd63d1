"""What all tests go by: the tiers, and that tests are skipped whose training libraries are not installed.

`pytest` leaves out the tests that tests/slow.txt lists; `make test` runs them too; `make nightly` runs what is marked
nightly, and property-based tests with more examples, drawn at random.
"""

import re
import sys
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SLOW = tuple((Path(__file__).parent / "tests" / "slow.txt").read_text(encoding="utf-8").split())
"""How the identifiers of slow tests begin."""

patience = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.differing_executors]
settings.register_profile("steady", max_examples=25, derandomize=True, deadline=None, suppress_health_check=patience)
settings.register_profile("nightly", max_examples=1000, deadline=None, suppress_health_check=patience, print_blob=True)
settings.load_profile("steady")

TRAINING_LIBRARIES = ("torch", "lightning", "safetensors", "nncf", "onnx", "monai")
ABSENT = [name for name in TRAINING_LIBRARIES if find_spec(name) is None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what tests/slow.txt lists."""
    for item in items:
        if item.nodeid.startswith(SLOW):
            item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skip a file that cannot be imported because a training library is absent."""
    report = yield
    if report.failed and (name := absent_in(str(report.longrepr))):
        forget_half_imported(collector)
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: {name} is not installed")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip a test that fails because a training library is absent."""
    report = yield
    if report.failed and (name := absent_in(report.longreprtext)):
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"Skipped: {name} is not installed")
    return report


def absent_in(text: str) -> str | None:
    """The training library that a failure names as missing, if it is one."""
    names = "|".join(ABSENT)
    missing = re.search(rf"No module named \\?'({names})\b|({names}) is not installed|need ({names});", text)
    return next(filter(None, missing.groups())) if missing and ABSENT else None


def forget_half_imported(collector: pytest.Collector) -> None:
    """Let the next import of a file whose import failed start over."""
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) == str(collector.path):
            del sys.modules[name]
