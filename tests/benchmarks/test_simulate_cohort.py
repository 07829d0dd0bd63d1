"""Laws of the simulated cohort."""

import math
from dataclasses import replace

import pytest

pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def script(benchmark_called):
    return benchmark_called("simulate_cohort")


@pytest.fixture
def plan(script):
    return script.Plan(cases=2000, nodes=5, cores=4, seconds=3.0, start=7.0, look=0.0)


@pytest.mark.parametrize("shared", [False, True])
def test_without_failures_and_spread_the_hours_are_those_of_the_closed_form(script, plan, shared):
    found = script.simulate(replace(plan, shared=shared))
    assert found.hours == pytest.approx((7 + 3.0 * 2000 / 10) / 3600)
    assert found.core_hours == pytest.approx(20 * found.hours)
    assert (found.repeated, found.failures) == (0, 0)


def test_a_slow_disk_sets_the_hours(script, plan):
    slow = replace(plan, disk=2e6, case_bytes=1e6)
    assert script.simulate(slow).hours == pytest.approx((7 + 2000 * 1e6 / 2e6) / 3600)
    assert script.simulate(replace(slow, disk=1e9)) == script.simulate(plan)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_core_hours_are_never_less_than_the_work_and_failures_never_save_time(script, plan, shared, seed):
    calm = replace(plan, spread=0.5, shared=shared, seed=seed)
    poor = replace(calm, hours_between_failures=0.05)
    before, after = script.simulate(calm), script.simulate(poor)
    assert after.failures > 0 and after.repeated > 0
    assert 0 < after.utilisation < before.utilisation <= 1
    assert after.hours > before.hours >= before.work_core_hours / 20
    assert after.work_core_hours == before.work_core_hours


def test_a_seed_gives_the_same_result_and_another_seed_another(script, plan):
    spread = replace(plan, spread=0.5, hours_between_failures=0.1, shared=True)
    assert script.simulate(spread) == script.simulate(spread)
    assert script.simulate(spread) != script.simulate(replace(spread, seed=1))


def test_sharing_ends_no_later_than_parts_where_looking_costs_nothing(script, plan):
    spread = replace(plan, spread=1.0)
    assert script.simulate(replace(spread, shared=True)).hours < script.simulate(spread).hours
    looking = replace(spread, shared=True, look=0.1)
    assert script.simulate(looking).hours > script.simulate(spread).hours


def test_a_node_fails_as_often_as_it_should(script):
    node = script.Node(100.0, (0, 0))
    now, count = 0.0, 0
    while (now := node.next_after(now)) < 100_000:
        count += 1
    assert count == pytest.approx(1000, abs=4 * math.sqrt(1000))
