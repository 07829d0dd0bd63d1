"""One line at the end: which tools judged, which were skipped, and why."""

import pytest

from judges.ask import Answers, ask, write_pairs
from judges.masks import Pair, make_pairs
from judges.panel import JUDGES

FAULTS = pytest.StashKey[dict[str, str]]()
"""Tool to why it was not asked; an empty text if it was."""


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    return make_pairs(random=20)


@pytest.fixture(scope="session", params=JUDGES, ids=lambda judge: judge.name)
def verdict(
    request: pytest.FixtureRequest, pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Answers]:
    """Name of a tool, and its answers; skipped where it is not installed."""
    judge = request.param
    faults = request.config.stash.setdefault(FAULTS, {})
    faults[judge.title] = judge.find_fault()
    if faults[judge.title]:
        pytest.skip(faults[judge.title])
    folder = tmp_path_factory.mktemp(judge.name)
    write_pairs(pairs, folder)
    return judge.name, ask(judge, pairs, folder).answers


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    faults = config.stash.get(FAULTS, {})
    if faults:
        terminalreporter.write_line(count_judges(faults))


def count_judges(faults: dict[str, str]) -> str:
    """The line of the summary."""
    judged = [title for title, fault in faults.items() if not fault]
    skipped = [f"{title} ({fault})" for title, fault in faults.items() if fault]
    line = f"{len(judged)} judged: {', '.join(judged) or 'none'}; {len(skipped)} skipped"
    return f"{line}: {'; '.join(skipped)}" if skipped else line
