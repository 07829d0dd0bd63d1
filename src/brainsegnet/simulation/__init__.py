"""Simulated cases: phantoms, realistic gliomas and ischaemic strokes, with the artefacts of scanners."""

from typing import Literal

StrokeTask = Literal["isles2022", "isles2017"]
"""Data sets whose cases of stroke are simulated."""
