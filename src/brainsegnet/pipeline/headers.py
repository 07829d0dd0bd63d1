"""What headers and names say about a series: words of its description, its type, and the times of its acquisition.

Every statement is an `Evidence`: a sequence, how sure it is, and why. Headers err, so that several are weighed against
each other (`weigh`). Beside the sequences of the package there are kinds that no model takes, such as localizers
(`KINDS`).
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brainsegnet.io.aliases import ORDER
from brainsegnet.io.dicom_headers import SeriesHeader

KINDS: Mapping[str, str] = {
    "b0": "diffusion scan without weighting",
    "pd": "proton density",
    "stir": "fat-suppressed inversion recovery",
    "t2star": "T2*",
    "swi": "susceptibility",
    "mra": "angiography",
    "asl": "arterial spin labelling",
    "bold": "functional series",
    "phase": "phase image",
    "derived": "derived map or projection",
    "localizer": "localizer",
    "mask": "mask or label map",
}
"""What a series may be beside a sequence of the package."""
CSF_T1_MS = 4200.0
"""T1 of cerebrospinal fluid, at any field (Rooney et al. 2007, "Magnetic field and tissue dependencies of 1H2O T1")."""
LONG_TE_MS = 50.0
LOW_B = 200.0
"""A smaller b-value, in s/mm2, counts as no diffusion weighting."""
_AGENT_ABSENT = re.compile(r"\s*(|no|none|n|0|0 ?ml|without.*|w/?o.*|nil|n/?a|ohne.*|nativ.*)\s*", re.IGNORECASE)
_TYPES: Mapping[str, str] = {
    "LOCALIZER": "localizer",
    "ADC": "adc",
    "EADC": "derived",
    "FA": "derived",
    "TENSOR": "derived",
    "SUBTRACTION": "derived",
    "PROJECTION IMAGE": "derived",
    "MIP": "derived",
    "MIN_IP": "derived",
    "MNIP": "derived",
    "P": "phase",
    "PHASE": "phase",
    "PHASE MAP": "phase",
    "PHASE_MAP": "phase",
    "R": "phase",
    "I": "phase",
    "REAL": "phase",
    "IMAGINARY": "phase",
    "SWI": "swi",
    "CBF": "rcbf",
    "CBV": "rcbv",
    "RELCBF": "rcbf",
    "RELCBV": "rcbv",
    "MTT": "mtt",
    "TTP": "ttp",
    "TMAX": "tmax",
    "ASL": "asl",
    "FMRI": "bold",
    "TRACEW": "dwi",
    "TRACE": "dwi",
    "T1": "t1",
    "T2": "t2",
    "T2_STAR": "t2star",
    "PROTON_DENSITY": "pd",
    "FLUID_ATTENUATED": "flair",
    "STIR": "stir",
}
"""Values of ImageType, those of enhanced files among them."""
_WEAK_TYPES = {"T1": 0.7, "T2": 0.5, "R": 0.5, "I": 0.5}
"""How sure these are, because some makers use them loosely; the others have 0.9."""
_WORDS: Sequence[tuple[str, str]] = (
    ("localizer", r"locali[sz]er|\bloc\b|scout|survey|\b3 ?pl(ane)?\b"),
    ("derived", r"exponential|\be ?adc\b|\bd?eadc|\bfa\b|fractional|tensor|\bcol ?fa\b|\bmm?ip\b|\bmin ?ip\b|subtract"),
    ("derived", r"^sub\b|\bsub$|\bmean curve\b|\bcal(ib\w*)?\b|\bshim|^asset\b|phoenix|dose report|\bscreen ?save"),
    ("adc", r"\bd?adc|adc\b|apparent diffusion|\baverage dc\b"),
    ("rcbf", r"\b(r|rel)?cbf\b"),
    ("rcbv", r"\b(r|rel)?cbv\b"),
    ("mtt", r"\bmtt\b"),
    ("tmax", r"\btmax\b"),
    ("ttp", r"\bttp\b"),
    ("asl", r"\basl\b|\bp?casl\b"),
    ("bold", r"(?<!ven )\bbold\b|\bfmri\b|resting ?state"),
    ("pwi", r"perf|\b4?d?pwi\b|\bdsc\b"),
    ("phase", r"\bpha(se)?\b"),
    ("swi", r"\bswi\b|\bswan\b|ven ?o?bold|suscept|\bswip?\b"),
    ("t2star", r"t2 ?\*|t2 ?star|\bt2s\b|hemo|haem|\bt2 (gre|ffe|fl2d)|\bgre t2"),
    ("mra", r"\btof\b|angio|\bmra\b|\bmrv\b"),
    ("b0", r"\bb ?0\b|\bb ?= ?0\b"),
    ("dwi", r"dwi\b|\bdwi|\bdw\b|diff|\btrace|\bdti\b|\bb ?=? ?\d{3,4}\b|\b\d{3,4} ?b\b|resolve"),
    ("stir", r"\bstir\b"),
    ("t1", r"\b[a-z0-9]{0,3}t1w?[ a-z]{0,8}\b(flair|tirm)|\bflair t1"),
    ("flair", r"flair|dark ?fl|\btirm\b|\bt2f\b"),
    ("t1", r"\b[a-z]{0,3}t1|mp ?rage|mp2rage|\bbravo\b|f?spgr\b|\bt1|\bgdt1|cet1"),
    ("t2", r"\b[a-z]{0,3}t2|3dt2"),
    ("pd", r"\bpdw?\b|\bpd(fse|tse)?\b|proton dens|\bdp\b"),
)
"""Sequence, and how it is named; the first that fits counts."""
_MASKS = re.compile(r"\b(\w*mask|msk|seg|segmentation|labels?|roi|dseg|gold standard|ot ?multi ?class)\b")
_TARGETS = re.compile(
    r"(reg|coreg|registered|aligned|resampled|warped)[ _-]*(to|2)?[ _-]*(flair|t1|t2|mni)[a-z0-9]*|space-[a-z0-9]+"
    r"|\b(sub|ses)-[a-z0-9]+",
    re.IGNORECASE,
)
"""What an image was registered to, or whose it is, says nothing about itself."""
_WITHOUT = re.compile(
    r"\bpre\b|precontrast|\bnativ|without|\bw ?o\b|\bohne\b|\bnon ?(contrast|enh)|unenhanced|\bnc\b|\bt1n\b|\bsans\b"
)
_WITH = re.compile(
    r"post(?! ?op)|\bgd\b|\bgad|gado|\+ ?c\b|\bc ?\+|\+ ?gd|\bkm\b|contrast|\bce\b|enhanced|\bmit km|\bpc\b"
    r"|t1w?i?(c|ce|gd|km|wc|wce|post)w?\b|\b(gd|ce)t1|\+ ?k\b|\bwith c\b|\bw ?c\b"
)


@dataclass(frozen=True)
class Evidence:
    """What one source says about a series.

    Attributes:
        sequence: Of the package or of `KINDS`; "t1" stands for T1 with and without contrast agent. Empty if the source
            speaks of the contrast agent alone.
        confidence: From 0 to 1.
        reason: Why, in words, without a stop.
        contrast: Whether a contrast agent was given; None if the source does not say.
    """

    sequence: str
    confidence: float
    reason: str
    contrast: bool | None = None


@dataclass(frozen=True)
class Verdict:
    """What several sources say together.

    Attributes:
        sequence: Of the package or of `KINDS`; empty if nothing is known.
        confidence: From 0 to 1.
        reason: What speaks for it, and after "but" what speaks against it.
        contrast: Whether a contrast agent was given; None if no source says so.
    """

    sequence: str = ""
    confidence: float = 0.0
    reason: str = "nothing is known about it"
    contrast: bool | None = None


def weigh(evidence: Iterable[Evidence]) -> Verdict:
    """The sequence for which most speaks.

    The sources count as independent. Confidence is the chance that not all that speak for the sequence are wrong, times
    the chance that all that speak for the next one are.

    Examples:
        >>> weigh([Evidence("t1", 0.8, "TE 10 ms"), Evidence("", 0.9, "Gadolinium was given", contrast=True)])
        Verdict(sequence='t1c', confidence=0.8, reason='TE 10 ms; Gadolinium was given', contrast=True)
    """
    said = list(evidence)
    doubt: defaultdict[str, float] = defaultdict(lambda: 1.0)
    for item in said:
        if item.sequence:
            doubt[item.sequence] *= 1 - item.confidence
    if not doubt:
        return Verdict()
    ranked = sorted(doubt, key=lambda sequence: doubt[sequence])
    best = ranked[0]
    confidence = (1 - doubt[best]) * (doubt[ranked[1]] if len(ranked) > 1 else 1)
    reasons = [item.reason for item in said if item.sequence == best]
    against = [item.reason for item in said if item.sequence not in ("", best)]
    contrast = None
    if best == "t1":
        best, sure, contrast, words = _weigh_contrast(said)
        confidence *= sure
        reasons += [word for word in words if word not in reasons]
    text = "; ".join(reasons) + ("; but " + ", ".join(against) if against else "")
    return Verdict(best, round(confidence, 3), text, contrast)


def _weigh_contrast(said: Sequence[Evidence]) -> tuple[str, float, bool | None, list[str]]:
    """T1 with or without contrast agent, how sure that is, and why."""
    spoken = sorted((item for item in said if item.contrast is not None), key=lambda item: -item.confidence)
    if not spoken:
        return "t1", 0.8, None, ["no word of a contrast agent"]
    first = spoken[0]
    agree = all(item.contrast == first.contrast for item in spoken)
    reasons = [item.reason for item in spoken if item.contrast == first.contrast]
    return "t1c" if first.contrast else "t1", 1 if agree else 0.7, first.contrast, reasons


def read_header(header: SeriesHeader) -> list[Evidence]:
    """What the headers of a series say."""
    text = " ".join(filter(None, (header.description, header.protocol)))
    named = [*_read_types(header), *(read_words(header.description, "description") or read_words(text, "protocol"))]
    kinds = {item.sequence for item in named}
    weighted = [] if kinds & {"adc", "derived", "pwi", "bold", "asl"} else list(_read_diffusion(header))
    if any(item.sequence == "b0" for item in weighted):
        named = [item for item in named if item.sequence != "dwi"]
    return [*named, *weighted, *_read_times(header), *_read_agent(header)]


def read_words(text: str, where: str) -> list[Evidence]:
    """What a description or a file name says.

    Args:
        text: In any case, with any separators.
        where: What it is, for the reason: "description" or "name".

    Examples:
        >>> [(item.sequence, item.contrast) for item in read_words("sag_T1_MPRAGE +C", "description")]
        [('t1', True)]
        >>> [read_words(text, "name")[0].sequence for text in ("t2_tirm_tra_dark-fluid", "AX T1 FLAIR", "T2* GRE")]
        ['flair', 't1', 't2star']
    """
    plain = re.sub(r"[^a-z0-9+*=]+", " ", _TARGETS.sub(" ", text).lower()).strip()
    if not plain:
        return []
    if where == "name" and (found := _MASKS.search(plain)):
        return [Evidence("mask", 0.95, f'"{found[0].strip()}" in its name')]
    for sequence, pattern in _WORDS:
        if found := re.search(pattern, plain):
            word = f'"{found[0].strip()}" in its {where}'
            contrast = _find_contrast(plain) if sequence == "t1" else None
            if contrast is not None:
                word = f'"{text.strip()}" in its {where}' if where != "name" else f'"{_shorten(plain)}" in its name'
            return [Evidence(sequence, 0.85, word, contrast)]
    return []


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."


def _find_contrast(plain: str) -> bool | None:
    without, rest = bool(_WITHOUT.search(plain)), _WITHOUT.sub(" ", plain)
    rest = re.sub(r"^ *contrast|  contrast", " ", rest) if without else rest
    given = bool(_WITH.search(rest))
    return None if given == without else given


def _read_types(header: SeriesHeader) -> Iterator[Evidence]:
    for word in header.image_type:
        plain = word.upper().strip()
        kind = _TYPES.get(plain) or ("adc" if plain.endswith("_ADC") and not plain.endswith("_EADC") else "")
        if kind:
            yield Evidence(kind, _WEAK_TYPES.get(plain, 0.9), f"image type {plain}")
            return


def _read_diffusion(header: SeriesHeader) -> Iterator[Evidence]:
    b_value = header.b_value
    if b_value is None:
        return
    if b_value >= LOW_B:
        yield Evidence("dwi", 0.9, f"b-value {b_value:g} s/mm2")
    elif b_value > 0 or "DIFFUSION" in header.image_type or header.directionality:
        yield Evidence("b0", 0.9, f"b-value {b_value:g} s/mm2")
    elif is_echo_planar(header):
        yield Evidence("b0", 0.6, "b-value 0 s/mm2 of an echo-planar scan")


def is_echo_planar(header: SeriesHeader) -> bool:
    """Whether the scan is echo-planar, as diffusion and perfusion are."""
    return "EP" in header.scanning_sequence or bool(re.match(r"\*?(ep|dwi)", header.sequence_name, re.IGNORECASE))


def _read_agent(header: SeriesHeader) -> Iterator[Evidence]:
    if not _AGENT_ABSENT.fullmatch(header.contrast_agent):
        yield Evidence("", 0.8, f"contrast agent {header.contrast_agent}", contrast=True)


def null_fluid_ms(tr_ms: float) -> float:
    """The inversion time at which cerebrospinal fluid gives no signal, for a repetition time.

    Examples:
        >>> round(null_fluid_ms(9000)), round(null_fluid_ms(4800))
        (2445, 1749)
    """
    return CSF_T1_MS * math.log(2 / (1 + math.exp(-tr_ms / CSF_T1_MS)))


def _read_times(header: SeriesHeader) -> list[Evidence]:
    """What the times of repetition, echo and inversion make of tissue."""
    tr, te, ti = header.tr_ms, header.te_ms, header.ti_ms or 0.0
    if not tr or te is None or is_echo_planar(header):
        return []
    times = f"TR {tr:.4g} ms, TE {te:.3g} ms" + (f", TI {ti:.4g} ms" if ti else "")
    kind, sure, why = _judge_times(header, tr, te, ti)
    return [Evidence(kind, sure, f"{times} ({why})")] if kind else []


def _judge_times(header: SeriesHeader, tr: float, te: float, ti: float) -> tuple[str, float, str]:
    """Sequence, confidence and reason, from times in ms; an empty sequence if they are those of no usual one."""
    gradient = "GR" in header.scanning_sequence or (not header.scanning_sequence and tr < 100)
    if ti and te >= LONG_TE_MS and abs(ti / null_fluid_ms(tr) - 1) < 0.3:
        return "flair", 0.9, "fluid is suppressed"
    if 80 <= ti <= 300 and tr > 1500 and not gradient:
        return "stir", 0.8, "fat is suppressed"
    if 300 <= ti <= 1500 and te < 30:
        return "t1", 0.85, "inversion recovery with a short echo"
    if gradient:
        if te >= 12:
            return "t2star", 0.75, "gradient echo with a late echo"
        steady = "SS" in header.sequence_variant and "SP" not in header.sequence_variant
        return ("", 0, "") if steady and tr < 20 else ("t1", 0.6, "gradient echo with a short echo")
    if te < 35 and tr < 1300:
        return "t1", 0.8, "short repetition and echo"
    if te < LONG_TE_MS and tr >= 1500:
        return "pd", 0.7, "long repetition, short echo"
    if te >= LONG_TE_MS and tr >= 1500 and not ti:
        return "t2", 0.8, "long repetition and echo"
    return "", 0, ""


def header_from_sidecar(content: Mapping[str, Any]) -> SeriesHeader:
    """The header of a series from the JSON that dcm2niix or BIDS puts beside an image; times there are in seconds.

    Examples:
        >>> header_from_sidecar({"EchoTime": 0.12, "SeriesDescription": "FLAIR"}).te_ms
        120.0
    """
    tr, te, ti = (_milliseconds(content.get(f"{word}Time")) for word in ("Repetition", "Echo", "Inversion"))
    return SeriesHeader(
        modality=_text(content.get("Modality")),
        manufacturer=_text(content.get("Manufacturer")),
        number=_whole(content.get("SeriesNumber")),
        description=_text(content.get("SeriesDescription")),
        protocol=_text(content.get("ProtocolName")),
        sequence_name=_text(content.get("SequenceName") or content.get("PulseSequenceName")),
        image_type=_words(content.get("ImageType")),
        scanning_sequence=_words(content.get("ScanningSequence")),
        sequence_variant=_words(content.get("SequenceVariant")),
        acquisition_type=_text(content.get("MRAcquisitionType")),
        tr_ms=tr,
        te_ms=te,
        ti_ms=ti,
        flip_degrees=_number(content.get("FlipAngle")),
        field_t=_number(content.get("MagneticFieldStrength")),
        b_value=_number(content.get("DiffusionBValue")),
        contrast_agent=_text(content.get("ContrastBolusIngredient") or content.get("ContrastBolusAgent")),
        units=_text(content.get("Units")),
    )


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _words(value: object) -> tuple[str, ...]:
    """A list of words, or words joined by a backslash or an underscore, as BIDS and dcm2niix write them."""
    if isinstance(value, str):
        return tuple(word.strip() for word in re.split(r"[\\_]", value) if word.strip())
    return tuple(str(word) for word in value) if isinstance(value, list) else ()


def _number(value: object) -> float | None:
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _whole(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _milliseconds(value: object) -> float | None:
    number = _number(value)
    return None if number is None else round(number * 1000, 6)


def is_sequence(name: str) -> bool:
    """Whether it is a sequence of the package, which a model may take."""
    return name in ORDER
