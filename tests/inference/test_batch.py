import threading
import time

import pytest

from brainsegnet.errors import BrainSegNetError, ImageError
from brainsegnet.inference.batch import run_batch


def refuse(error):
    raise error


def same(value):
    return value


def test_a_bad_case_does_not_stop_the_others():
    def read(n):
        return refuse(ImageError(f"case {n}: t1 is 0 everywhere")) if n == 2 else n

    def compute(n):
        return refuse(MemoryError()) if n == 4 else 10 * n

    def write(computed):
        return refuse(OSError(28, "No space left on device", "out")) if computed == 50 else computed

    batch = run_batch(range(1, 7), read, compute, write)
    assert list(batch.done) == [10, 30, 60]
    assert batch.failures == {
        "2": "case 2: t1 is 0 everywhere",
        "4": "case 4: there is not enough memory; cut the scan into slabs",
        "5": "case 5: out: No space left on device",
    }


def test_a_file_that_is_gone_is_named(tmp_path):
    def read(name):
        return (tmp_path / name).read_text()

    (tmp_path / "a").write_text("1")
    batch = run_batch(["b", "a"], read, same, same, lambda name: f"case-{name}")
    assert list(batch.done) == ["1"]
    assert batch.failures == {"case-b": f"case case-b: {tmp_path / 'b'}: No such file or directory"}


def test_the_next_case_is_read_while_this_one_is_computed():
    """The first computation waits until the second case is read: without overlap it would wait in vain."""
    read_second = threading.Event()

    def read(n):
        if n == 2:
            read_second.set()
        return threading.current_thread()

    def compute(thread):
        assert thread is not threading.current_thread()
        return read_second.wait(10)

    assert list(run_batch([1, 2], read, compute, same).done) == [True, True]


def test_a_case_is_written_while_the_next_is_computed():
    """The first is written only once the second is computed: without overlap it would wait in vain."""
    computed_second = threading.Event()

    def compute(n):
        if n == 2:
            computed_second.set()
        return threading.current_thread()

    def write(thread):
        assert thread is not threading.current_thread()
        return computed_second.wait(10)

    assert list(run_batch([1, 2], same, compute, write).done) == [True, True]


def test_no_more_than_one_case_is_read_ahead():
    seen = []

    def compute(_):
        seen.append(max(reads))

    reads = []
    run_batch(range(6), reads.append, compute, same)
    assert all(ahead <= done + 1 for done, ahead in enumerate(seen))


def test_ctrl_c_and_programming_errors_end_the_batch():
    for error in (KeyboardInterrupt(), TypeError("a mistake")):
        computed = []

        def compute(n, error=error, computed=computed):
            computed.append(n)
            return refuse(error) if n == 1 else n

        with pytest.raises(type(error)):
            run_batch(range(4), same, compute, same)
        assert computed == [0, 1]


def test_no_case_is_no_result():
    batch = run_batch([], same, same, same)
    assert not batch.done and not batch.failures


def test_any_error_of_the_user_is_a_sentence():
    batch = run_batch(["a"], lambda item: refuse(BrainSegNetError("too small")), same, same)
    assert batch.failures == {"a": "too small"}


def test_the_time_of_computing_does_not_include_the_wait_for_a_file():
    def take(seconds):
        time.sleep(seconds)

    batch = run_batch([0, 1], lambda n: take(0.3), lambda loaded: take(0.1), same)
    assert 0.2 <= batch.computing < 0.5 < batch.seconds


def test_the_first_case_is_read_during_the_start_and_an_error_there_ends_the_batch():
    reading = threading.Event()

    batch = run_batch([1], lambda n: reading.set(), lambda loaded: 2, same, start=lambda: reading.wait(10) or 1 / 0)
    assert list(batch.done) == [2]
    with pytest.raises(BrainSegNetError, match="no such device"):
        run_batch([1, 2], same, same, same, start=lambda: refuse(BrainSegNetError("no such device")))
