"""The workflows run nothing that a developer cannot run: make targets and the smoke test, with pinned actions."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def jobs(path):
    return yaml.safe_load(path.read_text())["jobs"].values()


def steps(path):
    return [step for job in jobs(path) for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_step_is_a_make_target_or_a_pinned_action(path):
    for step in steps(path):
        if "uses" in step:
            assert re.fullmatch(r"actions/(checkout|setup-python)@[0-9a-f]{40}", step["uses"])
        else:
            command = step["run"].removesuffix(" PYTHON=python")
            assert command.removeprefix("make ") in TARGETS or command == "python tools/smoke.py dist"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_job_may_only_read_and_ends(path):
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 120 for job in jobs(path))


def test_every_version_of_python_that_is_claimed_is_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    claimed = {kind.split()[-1] for kind in project["classifiers"] if re.search(r":: 3\.\d+$", kind)}
    (test, *_) = jobs(ROOT / ".github" / "workflows" / "tests.yml")
    assert claimed <= set(test["strategy"]["matrix"]["python"])


def test_the_lowest_versions_are_those_that_are_required():
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pinned = (ROOT / "constraints-lowest.txt").read_text().split()
    lowest = {name: version for name, version in (line.split("==") for line in pinned)}
    bounds = {name: version for name, version in (line.split(">=") for line in required)}
    assert lowest.keys() == bounds.keys()
    assert all(f"{lowest[name]}.".startswith(f"{bounds[name]}.") for name in bounds)


def test_every_slow_test_that_is_listed_is_there():
    for line in (ROOT / "tests" / "slow.txt").read_text().split():
        file, *names = line.split("::")
        assert (ROOT / file).exists(), line
        assert not names or f"def {names[0].split('[')[0]}" in (ROOT / file).read_text(), line
