"""The tools that make, judge and ship the models of the package; no part of the wheel."""
