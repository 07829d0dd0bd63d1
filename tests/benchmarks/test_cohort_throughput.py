"""Memory against the number of cases, from the looks at the processes."""

import os

import pytest


@pytest.fixture(scope="module")
def script(benchmark_called):
    return benchmark_called("cohort_throughput")


def test_memory_that_rises_after_the_first_fifth_is_seen(script):
    rising = [(done, 10_000 * done, 21) for done in range(1, 1001)]
    assert script.find_slope(rising, 1) == (pytest.approx(10_000), pytest.approx(0, abs=1e-3))
    assert script.find_slope(rising, 2)[0] == pytest.approx(0, abs=1e-9)


def test_memory_that_rises_at_first_only_is_flat(script):
    warm = [(done, 2**20 * min(done, 200), 21) for done in range(1, 1001)]
    assert script.find_slope(warm, 1)[0] == pytest.approx(0, abs=1e-6)
    first, second, *later = script.find_medians(warm)
    assert first < second < 200 and set(later) == {200}


def test_a_tenth_that_no_look_fell_into_is_left_out(script):
    assert script.find_medians([(1, 2**20, 1), (10, 2**21, 1)]) == [1, 2]


def test_own_memory_and_files_are_measured(script):
    process = os.getpid()
    assert next(script.list_processes(process)) == process
    taken, files = script.measure(process)
    with open(os.devnull):
        assert script.measure(process)[1] == files + 1
    assert 2**20 < taken < 2**40
