from dataclasses import fields

from brainsegnet.cli.segment import NamedFiles
from brainsegnet.task import TASKS


def test_every_sequence_of_every_built_in_task_has_a_flag():
    known = {sequence for task in TASKS.values() for sequence in task.sequences}
    assert known == {field.name for field in fields(NamedFiles)}
