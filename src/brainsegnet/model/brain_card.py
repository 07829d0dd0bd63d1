"""The shipped model of brain extraction: its card, `brain.json`, and its OpenVINO files, without torch.

It finds the brain in raw scans and segments no lesion, so it has a card of its own, and `segment --model` refuses it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from brainsegnet._atomic import hash_file
from brainsegnet._documents import load_json, read_text
from brainsegnet._types import Shape
from brainsegnet.errors import ModelError, describe_invalid
from brainsegnet.model.card import INTENDED_USE, CardPart
from brainsegnet.model.store import BRAIN_CARD_FILE, HOME

BRAIN_HOME = HOME / "brain"
BRAIN_FORMAT = 1
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Limits(CardPart):
    """What a scan of a head has; a scan beyond one of these shows no brain.

    Attributes:
        volume_ml: Smallest volume of the brain in the field of view, in millilitres.
        most_ml: Largest volume of a brain.
        largest_share: Smallest share of the largest component in all voxels of positive logit.
        mean_probability: Smallest mean of the probability over the brain.
        detail: Smallest mean slope of the scaled intensities within the brain, per voxel of 2 mm. 72 real scans have
            0.015 or more, a uniform phantom has 0.002.
    """

    volume_ml: float = Field(ge=0)
    most_ml: float = Field(ge=0)
    largest_share: float = Field(ge=0, le=1)
    mean_probability: float = Field(ge=0, le=1)
    detail: float = Field(default=0.01, ge=0)


class BrainCard(CardPart):
    """Content of `brain.json`.

    Attributes:
        format: Version of the card.
        name: Name of the model.
        sequences: What it takes, in words.
        network: Widths of the levels and of the refinement.
        parameters: Number of weights.
        block: Voxels (D, H, W) that become the channels of the network.
        multiples: Multiples of voxels (D, H, W) that the network needs.
        threshold: Logit from which a voxel belongs to the brain.
        limits: What a scan of a head has at least.
        steps: Steps of the training.
        weights: SHA-256 of the weights in floats, which the files were made from.
        files: Each file beside the card to its SHA-256, the one to open first.
        data: What it was trained on, and under which terms.
        licence: Licence of the files.
        intended_use: What it is for.
        scores: Figures on simulated heads by name, from label maps that it was not trained on.
    """

    format: int = BRAIN_FORMAT
    name: str = "brain"
    sequences: str = "one sequence at a time, any"
    network: Mapping[str, Any]
    parameters: int
    block: Shape
    multiples: Shape
    threshold: float
    limits: Limits
    steps: int = Field(ge=0)
    weights: Sha256
    files: Mapping[str, Sha256]
    data: str
    licence: str = "Apache-2.0"
    intended_use: str = INTENDED_USE
    scores: Mapping[str, float] = Field(default_factory=dict)


def read_brain_card(home: Path = BRAIN_HOME) -> BrainCard:
    """The card of a model of brain extraction, after a check of its files.

    Raises:
        ModelError: the card or a file is missing, damaged or altered, or the card is too new.
    """
    path, remedy = home / BRAIN_CARD_FILE, "install brainsegnet again"
    try:
        content = load_json(read_text(path))
        if isinstance(content, dict) and isinstance(content.get("format"), int) and content["format"] > BRAIN_FORMAT:
            raise ModelError(f"{path} has format {content['format']}, this version reads {BRAIN_FORMAT}; {remedy}")
        card = BrainCard.model_validate(content)
        altered = [name for name, known in card.files.items() if hash_file(home / Path(name).name) != known]
    except ValidationError as error:
        raise ModelError(f"{path} is no card of a model: {describe_invalid(error.errors()[0])}; {remedy}") from error
    except OSError as error:
        raise ModelError(f"{error.filename or path} cannot be read: {error.strerror or error}; {remedy}") from error
    except ValueError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} is not JSON ({error}); {remedy}") from error
    if altered:
        raise ModelError(f"{home / altered[0]} is not the file that its card describes (SHA-256 differs); {remedy}")
    return card
