"""The page with NiiVue: a script of a known hash alone, volumes where they are, and names as text.

nilearn is not imported, so a folder of its form stands for it.
"""

import base64
import gzip
import hashlib
import json
import re

import nibabel
import numpy as np
import pytest

from brainsegnet.errors import MissingExtra, UsageError
from brainsegnet.plotting import niivue
from brainsegnet.plotting.niivue import read_script, show_niivue
from brainsegnet.plotting.result import view
from brainsegnet.plotting.viewer import Shown
from brainsegnet.task import BRATS2021
from brainsegnet.volume import LabelMap, Volume

SCRIPT = 'window.niivue = "a script";'
NASTY = "<b>&\"'p</script>"


@pytest.fixture
def carrier(tmp_path, monkeypatch):
    """A package of the form of nilearn, whose script is known."""
    folder = tmp_path / "carrier_of_niivue"
    (folder / "_assets" / "js").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "_assets" / "js" / "niivue.umd.js").write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(niivue, "KNOWN", {hashlib.sha256(SCRIPT.encode()).hexdigest(): "1.2.3"})
    return folder


def case():
    affine = np.diag([2.0, 1.0, 1.5, 1.0])[[2, 1, 0, 3]] * np.array([1, 1, -1, 1])
    affine[:3, 3] = 30, -12, 4
    labels = np.zeros((12, 20, 16), np.uint8)
    labels[5:8, 9:12, 6:10] = 2
    labels[6, 10, 7] = 4
    image = np.zeros(labels.shape, np.float32)
    image[2:10, 3:17, 2:14] = np.random.default_rng(0).uniform(50, 100, (8, 14, 12))
    return Shown(NASTY, LabelMap(labels, affine), BRATS2021, {"flair": Volume(image, affine)}, warnings=(NASTY,))


def volumes(html):
    found = re.findall(r'<script type="application/octet-stream" id="volume\d">([^<]*)</script>', html)
    return [nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text))) for text in found]


def test_a_script_that_is_not_known_or_absent_is_refused(carrier):
    assert read_script(carrier.name) == (SCRIPT, "1.2.3")
    with pytest.raises(MissingExtra, match=r"gone_package, which carries NiiVue, is not installed; run: pip install"):
        read_script("gone_package")
    (carrier / "_assets" / "js" / "niivue.umd.js").write_text(SCRIPT + " ")
    with pytest.raises(MissingExtra, match=r"is not NiiVue 1\.2\.3, the version that was checked; run: pip install"):
        read_script(carrier.name)


def test_the_page_holds_script_and_volumes_at_their_places(carrier, monkeypatch):
    monkeypatch.setattr(niivue, "read_script", lambda: read_script(carrier.name))
    shown = case()
    html = show_niivue(shown).html
    assert SCRIPT in html and "NiiVue 1.2.3, BSD-2-Clause" in html
    image, labels = volumes(html)
    assert image.shape == labels.shape and np.allclose(image.affine, labels.affine)
    expected = shown.labels
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ expected.affine
    for value in (2, 4):
        stored = nibabel.affines.apply_affine(ras, np.argwhere(expected.array == value))
        drawn = nibabel.affines.apply_affine(labels.affine, np.argwhere(np.asarray(labels.dataobj) == value))
        assert {tuple(place) for place in stored.round(3)} == {tuple(place) for place in drawn.round(3)}
    levels = np.asarray(image.dataobj)
    assert (levels.min(), levels.max()) == (0, 255)
    meta = json.loads(re.search(r'id="meta">(.*?)</script>', html)[1])
    assert meta["names"] == ["flair", "labels"] and meta["colours"]["I"] == [0, 1, 2, 4]
    assert meta["colours"]["R"][3] == meta["colours"]["A"][3] == 255


def test_names_stay_text_and_nothing_is_asked_of_a_network(carrier, monkeypatch):
    monkeypatch.setattr(niivue, "read_script", lambda: read_script(carrier.name))
    html = show_niivue(case()).html
    assert NASTY not in html and html.count("&lt;b&gt;&amp;") >= 3
    assert not re.search(r"""(?:src|href)\s*=|url\(|@import|https?:""", html)


def test_a_truth_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UsageError, match="the page of NiiVue shows no truth; leave out --viewer or --truth"):
        view(tmp_path / "a.nii.gz", tmp_path / "a.html", truth=tmp_path / "b.nii.gz", viewer="niivue")
