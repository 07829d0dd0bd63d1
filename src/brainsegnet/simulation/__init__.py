"""Simulated cases: phantoms, realistic gliomas and strokes, with the faults of scanners."""
