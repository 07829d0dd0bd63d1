import threading
import time

import pytest

from brainsegnet.errors import BrainSegNetError, ImageError
from brainsegnet.inference.batch import run_batch


def refuse(error):
    raise error


def keep(item, found):
    return found


def test_a_bad_case_does_not_stop_the_others():
    def read(n):
        return refuse(ImageError(f"case {n}: t1 is 0 everywhere")) if n == 2 else n

    def compute(n, datum):
        return refuse(MemoryError()) if n == 4 else 10 * datum

    def write(n, found):
        return refuse(OSError(28, "No space left on device", "out")) if n == 5 else found

    cohort = run_batch(range(1, 7), read, lambda: compute, write, str)
    assert list(cohort.results) == [10, 30, 60]
    assert cohort.failures == {
        "2": "case 2: t1 is 0 everywhere",
        "4": "case 4: the memory does not suffice; cut the scan into slabs",
        "5": "case 5: out: No space left on device",
    }


def test_a_file_that_is_gone_is_named(tmp_path):
    def read(name):
        return (tmp_path / name).read_text()

    (tmp_path / "a").write_text("1")
    cohort = run_batch(["b", "a"], read, lambda: lambda name, text: text, keep, lambda name: f"case-{name}")
    assert list(cohort.results) == ["1"]
    assert cohort.failures == {"case-b": f"case case-b: {tmp_path / 'b'}: No such file or directory"}


def test_the_next_case_is_read_while_this_one_is_computed():
    """The first computation waits until the second case is read: without overlap it would wait in vain."""
    read_second = threading.Event()

    def read(n):
        if n == 2:
            read_second.set()
        return threading.current_thread()

    def compute(n, thread):
        assert thread is not threading.current_thread()
        return read_second.wait(10)

    assert list(run_batch([1, 2], read, lambda: compute, keep, str).results) == [True, True]


def test_a_case_is_written_while_the_next_is_computed():
    """The first is written only once the second is computed: without overlap it would wait in vain."""
    computed_second = threading.Event()

    def compute(n, datum):
        if n == 2:
            computed_second.set()
        return threading.current_thread()

    def write(n, thread):
        assert thread is not threading.current_thread()
        return computed_second.wait(10)

    assert list(run_batch([1, 2], str, lambda: compute, write, str).results) == [True, True]


def test_no_more_than_one_case_is_read_ahead():
    seen = []

    def compute(n, datum):
        seen.append(max(reads))
        return n

    reads = []
    run_batch(range(6), reads.append, lambda: compute, keep, str)
    assert all(ahead <= done + 1 for done, ahead in enumerate(seen))


def test_ctrl_c_and_mistakes_of_ours_end_the_whole():
    for error in (KeyboardInterrupt(), TypeError("a mistake")):
        computed = []

        def compute(n, datum, error=error, computed=computed):
            computed.append(n)
            return refuse(error) if n == 1 else n

        with pytest.raises(type(error)):
            run_batch(range(4), str, lambda: compute, keep, str)
        assert computed == [0, 1]


def test_no_case_is_no_result():
    cohort = run_batch([], str, lambda: lambda item, datum: datum, keep, str)
    assert not cohort.results and not cohort.failures


def test_any_error_of_the_user_is_a_sentence():
    cohort = run_batch(["a"], lambda item: refuse(BrainSegNetError("too small")), lambda: lambda i, d: d, keep, str)
    assert cohort.failures == {"a": "too small"}


def test_the_time_at_work_is_told_and_waiting_for_a_file_is_none():
    def take(seconds):
        time.sleep(seconds)

    cohort = run_batch([0, 1], lambda n: take(0.3), lambda: lambda n, datum: take(0.1), keep, str)
    assert 0.2 <= cohort.computing < 0.5 < cohort.seconds


def test_the_first_case_is_read_while_the_network_is_made_ready_and_that_may_end_the_whole():
    reading = threading.Event()

    def start():
        assert reading.wait(10)
        return lambda n, datum: refuse(TypeError("never reached"))

    def fail():
        raise BrainSegNetError("no such device")

    with pytest.raises(TypeError, match="never reached"):
        run_batch([1], lambda n: reading.set(), start, keep, str)
    with pytest.raises(BrainSegNetError, match="no such device"):
        run_batch([1, 2], str, fail, keep, str)
