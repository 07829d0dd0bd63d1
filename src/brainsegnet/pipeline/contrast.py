"""What an image itself says about its sequence."""

from brainsegnet.pipeline.headers import Evidence
from brainsegnet.volume import Volume


def read_contrast(volume: Volume) -> list[Evidence]:
    """Nothing yet."""
    return []
