"""What descriptions, names, types and times say about a series, and how several statements are weighed."""

import pytest

from brainsegnet.io.dicom_headers import SeriesHeader
from brainsegnet.pipeline.headers import Evidence, header_from_sidecar, read_header, read_words, weigh

DESCRIPTIONS = {
    "t2_tse_tra": "t2",
    "tra T2W_TSE": "t2",
    "T2 postop": "t2",
    "Ax FLAIR": "flair",
    "OAx T2 FLAIR": "flair",
    "eT2W_FLAIR_SENSE": "flair",
    "t2_tirm_tra_dark-fluid": "flair",
    "FLAIR CUBE post": "flair",
    "t1_mprage_sag_p2_iso": "t1",
    "sT1W_3D": "t1",
    "t1_se_tra nativ": "t1",
    "T1 without contrast": "t1",
    "T1 w/o": "t1",
    "T1 PRE AND POST": "t1",
    "T1 postop": "t1",
    "AX T1 POST GD": "t1c",
    "T1 FLAIR + C": "t1c",
    "MPRAGE+C": "t1c",
    "BRAVO+C": "t1c",
    "T1ce": "t1c",
    "Cor T1 nach KM": "t1c",
    "T1 with contrast": "t1c",
    "ep2d_diff_3scan_trace_p2_TRACEW": "dwi",
    "DWI_b1000": "dwi",
    "AX DWI 1000b": "dwi",
    "isoDWI": "dwi",
    "ep2d_diff_3scan_trace_p2_ADC": "adc",
    "dADC": "adc",
    "Apparent Diffusion Coefficient (mm2/s)": "adc",
    "Exponential Apparent Diffusion Coefficient": "derived",
    "mIP_Images(SW)": "derived",
    "SWI_Images": "swi",
    "T2* GRE": "t2star",
    "t2_fl2d_hemo": "t2star",
    "TOF_3D_multi-slab": "mra",
    "3 plane loc": "localizer",
    "AAHScout": "localizer",
    "relCBF": "rcbf",
    "ep2d_perf": "pwi",
    "Ax DWI ASSET": "dwi",
    "ASSET calibration": "derived",
    "Cal 8HRBRAIN": "derived",
    "AX T1 POST ASSET": "t1c",
    "Average DC": "adc",
    "VEN_BOLD": "swi",
    "resting state BOLD": "bold",
    "fl3d": "",
    "": "",
}


@pytest.mark.parametrize(("text", "sequence"), DESCRIPTIONS.items())
def test_descriptions_of_several_makers_and_languages(text, sequence):
    assert weigh(read_words(text, "description")).sequence == sequence


@pytest.mark.parametrize(
    ("name", "sequence"),
    [
        ("BraTS-GLI-00012-000-t2f", "flair"),
        ("BraTS-GLI-00012-000-t1n", "t1"),
        ("BraTS2021_00006_t1ce", "t1c"),
        ("sub-01_ses-2_ce-gadolinium_T1w", "t1c"),
        ("sub-01_space-T1w_T2w", "t2"),
        ("sub-strokecase0001_ses-0001_adc", "adc"),
        ("T1POST_N4_regtoFLAIR_brain", "t1c"),
        ("study1_T2W", "t2"),
        ("case1_t1_hdbet_mask", "mask"),
        ("BraTS2021_00006_seg", "mask"),
        ("brain1_image", ""),
    ],
)
def test_names_of_files(name, sequence):
    assert weigh(read_words(name, "name")).sequence == sequence


TIMES = {
    (9000, 120, 2500, "SE IR"): "flair",
    (4800, 387, 1650, "IR"): "flair",
    (6000, 394, 2200, "SE IR"): "flair",
    (4000, 194, 1400, "SE IR"): "flair",
    (2000, 10, 800, "SE IR"): "t1",
    (2200, 3.2, 900, "GR IR"): "t1",
    (6.8, 3.1, None, ""): "t1",
    (500, 10, None, "SE"): "t1",
    (4000, 100, None, "SE"): "t2",
    (4000, 12, None, "SE"): "pd",
    (600, 20, None, "GR"): "t2star",
    (4000, 60, 150, "SE IR"): "stir",
    (None, None, None, ""): "",
}


@pytest.mark.parametrize(("times", "sequence"), TIMES.items())
def test_times_alone(times, sequence):
    tr, te, ti, how = times
    header = SeriesHeader(tr_ms=tr, te_ms=te, ti_ms=ti, scanning_sequence=tuple(how.split()))
    assert weigh(read_header(header)).sequence == sequence


def test_a_steady_state_is_no_t1():
    header = SeriesHeader(tr_ms=5, te_ms=2.5, scanning_sequence=("GR",), sequence_variant=("SS",))
    assert weigh(read_header(header)).sequence == ""


@pytest.mark.parametrize(
    ("fields", "sequence"),
    [
        ({"b_value": 1000.0}, "dwi"),
        ({"b_value": 0.0, "scanning_sequence": ("EP",), "description": "AX DWI 1000b"}, "b0"),
        ({"b_value": 0.0, "directionality": "none", "image_type": ("DERIVED", "PRIMARY", "TRACEW")}, "b0"),
        ({"b_value": 0.0, "scanning_sequence": ("SE",), "tr_ms": 4000.0, "te_ms": 100.0}, "t2"),
        ({"b_value": 0.0, "scanning_sequence": ("EP",), "description": "ep2d_perf"}, "pwi"),
        ({"b_value": 1000.0, "image_type": ("DERIVED", "PRIMARY", "DIFFUSION", "ADC")}, "adc"),
        ({"b_value": 1000.0, "description": "Apparent Diffusion Coefficient (mm2/s)"}, "adc"),
        ({"image_type": ("DERIVED", "PRIMARY", "M_ADC")}, "adc"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER"), "tr_ms": 8.0, "te_ms": 4.0}, "localizer"),
    ],
)
def test_diffusion_and_types(fields, sequence):
    assert weigh(read_header(SeriesHeader(**fields))).sequence == sequence


@pytest.mark.parametrize(
    ("agent", "description", "sequence"),
    [
        ("Gadobutrol", "", "t1c"),
        ("NO", "", "t1"),
        ("without", "", "t1"),
        ("", "t1 post", "t1c"),
        ("Gadobutrol", "t1 pre", "t1"),
        ("Gadobutrol", "flair", "flair"),
    ],
)
def test_contrast_agents(agent, description, sequence):
    times = {"tr_ms": 500.0, "te_ms": 10.0} if "flair" not in description else {}
    header = SeriesHeader(contrast_agent=agent, description=description, scanning_sequence=("SE",), **times)
    assert weigh(read_header(header)).sequence == sequence


def test_contradictions_are_told_and_lower_the_confidence():
    header = SeriesHeader(description="t1_se_tra", tr_ms=9000.0, te_ms=120.0, ti_ms=2500.0)
    verdict = weigh(read_header(header))
    assert verdict.sequence == "flair" and verdict.confidence < 0.2
    assert 'but "t1" in its description' in verdict.reason and "fluid is suppressed" in verdict.reason
    pair = [Evidence("t1", 0.8, "a", contrast=True), Evidence("", 0.7, "b", contrast=False)]
    assert weigh(pair).confidence == pytest.approx(0.8 * 0.7)


def test_agreement_raises_the_confidence():
    one = weigh(read_words("t2_tse", "description"))
    both = weigh(read_header(SeriesHeader(description="t2_tse", tr_ms=4000.0, te_ms=100.0)))
    assert both.confidence > one.confidence == 0.85 and both.sequence == "t2"


def test_sidecars_are_in_seconds_and_may_be_anything():
    content = {"RepetitionTime": 9, "EchoTime": 0.12, "InversionTime": 2.5, "ImageType": ["ORIGINAL", "M"]}
    header = header_from_sidecar({**content, "ScanningSequence": "SE_IR", "SeriesNumber": 4, "FlipAngle": [150]})
    assert (header.tr_ms, header.te_ms, header.ti_ms, header.number) == (9000, 120, 2500, 4)
    assert header.scanning_sequence == ("SE", "IR") and header.flip_degrees == 150
    assert weigh(read_header(header)).sequence == "flair"
    broken = {"RepetitionTime": "x", "EchoTime": True, "SeriesDescription": 3, "ImageType": {}, "SeriesNumber": 1e999}
    assert header_from_sidecar(broken) == SeriesHeader()
