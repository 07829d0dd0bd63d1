"""The model of the package finds that a simulated tumour has grown by a known factor, and that it has not."""

from dataclasses import replace

import numpy as np
import pytest

from brainsegnet.followup.follow import follow
from brainsegnet.inference import SegmentOptions
from brainsegnet.io.images import write_image
from brainsegnet.preprocessing.alignment import resample
from brainsegnet.simulation import phantom
from brainsegnet.volume import load_itk

SEED = 1


@pytest.fixture
def scan(monkeypatch, tmp_path, motion):
    """Writes a phantom whose tumour is a number of times as large, moved or not, with new noise; and its volume."""
    draw = phantom.draw_tumour

    def make(name, factor, moved):
        def grow(*given):
            tumour = draw(*given)
            parts = ("necrosis", "oedema", "non_enhancing", "enhancing")
            return replace(tumour, **{part: round(getattr(tumour, part) * factor) for part in parts})

        monkeypatch.setattr(phantom, "draw_tumour", grow)
        case = phantom.simulate_phantom(SEED)
        matrix = np.linalg.inv(motion(5.0, (3.0, -4.0, 2.0)))
        transform = load_itk().AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())
        noise = np.random.default_rng(len(name))
        for sequence, image in case.images.items():
            array = resample(image, image, transform).array if moved else image.array.astype(np.float32)
            noisy = np.where(array > 0, array * noise.normal(1, 0.02, array.shape), 0)
            write_image(image.with_array(noisy.astype(np.float32)), tmp_path / name / f"{sequence}.nii.gz")
        return tmp_path / name, np.count_nonzero(case.lesion.array) * case.lesion.voxel_ml

    return make


def test_growth_by_a_known_factor_is_found_and_a_repeat_shows_none(scan, tmp_path):
    (first, before), (repeat, _), (grown, after) = (
        scan("first", 1, False), scan("repeat", 1, True), scan("grown", 2.2, True)
    )  # fmt: skip
    timeline = follow([first, repeat, grown], tmp_path / "out", "tumour", SegmentOptions(device="cpu", threads=1))
    changes = timeline.since_first["whole"]
    assert [change.verdict for change in changes] == ["stable", "grown"]
    assert changes[1].after / changes[1].before == pytest.approx(after / before, rel=0.1)
    assert timeline.volumes["whole"] == pytest.approx((before, before, after), rel=0.12)
    assert timeline.placed[1].registration.translation_mm > 3
