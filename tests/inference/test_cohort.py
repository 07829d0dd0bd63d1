import threading

import pytest

from brainsegnet.errors import BrainSegNetError, ImageError
from brainsegnet.inference.cohort import run_cohort


def refuse(error):
    raise error


def test_a_bad_case_does_not_stop_the_others():
    def read(n):
        return refuse(ImageError(f"case {n}: t1 is 0 everywhere")) if n == 2 else n

    def compute(n, datum):
        return refuse(MemoryError()) if n == 4 else 10 * datum

    told = []
    cohort = run_cohort(range(1, 6), read, compute, str, lambda case, sentence: told.append((case, sentence)))
    assert list(cohort.results) == [10, 30, 50]
    assert cohort.failures == {
        "2": "case 2: t1 is 0 everywhere",
        "4": "case 4: the memory does not suffice; cut the scan into slabs",
    }
    assert told == [(str(n), cohort.failures.get(str(n))) for n in range(1, 6)]


def test_a_file_that_is_gone_is_named(tmp_path):
    def read(name):
        return (tmp_path / name).read_text()

    (tmp_path / "a").write_text("1")
    cohort = run_cohort(["b", "a"], read, lambda name, text: text, lambda name: f"case-{name}")
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

    assert list(run_cohort([1, 2], read, compute, str).results) == [True, True]


def test_no_more_than_one_case_is_read_ahead():
    seen = []

    def compute(n, datum):
        seen.append(max(reads))
        return n

    reads = []
    run_cohort(range(6), reads.append, compute, str)
    assert all(ahead <= done + 1 for done, ahead in enumerate(seen))


def test_ctrl_c_and_mistakes_of_ours_end_the_whole():
    for error in (KeyboardInterrupt(), TypeError("a mistake")):
        computed = []

        def compute(n, datum, error=error, computed=computed):
            computed.append(n)
            return refuse(error) if n == 1 else n

        with pytest.raises(type(error)):
            run_cohort(range(4), str, compute, str)
        assert computed == [0, 1]


def test_no_case_is_no_result():
    cohort = run_cohort([], str, lambda item, datum: datum, str)
    assert not cohort.results and not cohort.failures


def test_any_error_of_the_user_is_a_sentence():
    cohort = run_cohort(["a"], lambda item: refuse(BrainSegNetError("too small")), lambda i, d: d, str)
    assert cohort.failures == {"a": "too small"}
