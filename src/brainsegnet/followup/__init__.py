"""Studies of one patient over time: registered to the first, with volumes and lesions compared.

This file holds the options, which load no heavy library.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class FollowOptions:
    """What `brainsegnet follow` compares, and what its page shows."""

    same_patient: bool = False
    "Go on where headers, names or the registration tell of two patients."
    identify: bool = False
    """Show the names of the cases and the dates on the page. By default it holds numbers and days, because names and
    dates may tell who the patient is."""
