import pytest

pytest.importorskip("pyarrow")

from brainsegnet.cohort import run
from brainsegnet.cohort.run import share_machine
from brainsegnet.inference import SegmentOptions


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Eight cores and 32 GB of free memory; no GPU unless it is named."""
    monkeypatch.setattr(run, "count_cores", lambda: 8)
    monkeypatch.setattr(run, "free_memory", lambda: 32_000_000_000)
    monkeypatch.setattr(run, "stays_on_cpu", lambda device: device != "cuda")


@pytest.mark.parametrize(("workers", "threads"), [(2, 4), (3, 2), (16, 1)])
def test_processes_share_cores_and_half_of_the_memory(workers, threads):
    shared = share_machine(SegmentOptions(), workers)
    assert shared.threads == threads
    assert workers * shared.max_memory_gb == pytest.approx(16)


def test_little_memory_and_a_gpu(monkeypatch):
    monkeypatch.setattr(run, "free_memory", lambda: 0)
    assert share_machine(SegmentOptions(), 2).max_memory_gb == 1.0
    assert share_machine(SegmentOptions(device="cuda"), 2).max_memory_gb is None
    assert share_machine(SegmentOptions(device="cpu"), 2).max_memory_gb == 1.0


def test_what_is_given_stays(monkeypatch):
    given = SegmentOptions(threads=3, max_memory_gb=7.0)
    assert share_machine(given, 4) == given
    monkeypatch.setattr(run, "free_memory", lambda: None)
    assert share_machine(SegmentOptions(), 2).max_memory_gb is None
