"""Types of arguments that several verbs have."""

Names = tuple[str, ...]
Switch = bool
Shape = tuple[int, int, int]
