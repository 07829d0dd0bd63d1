from brainsegnet.cli.bars import TrainingBar, describe_event
from brainsegnet.progress import ProgressEvent


def event(step, progress, **dice):
    return ProgressEvent(progress, 0.5, None, step, step / 4, "original", 1.25, 1e-3, 12.34, 0.021, dice)


def test_an_event_is_one_line_in_words():
    assert describe_event(event(3, 0.1)) == "original step 3: loss 1.250, 12.3 samples/s, 2% waiting for data"
    assert "loss 1.250, whole 0.500, core 0.250, 12.3" in describe_event(event(3, 0.1, whole=0.5, core=0.25))


def test_off_a_terminal_every_twentieth_and_every_validation_is_a_line_of_its_own(capsys):
    with TrainingBar() as bar:
        for number in range(100):
            bar.on_progress(event(number, number / 100))
        bar.on_progress(event(99, 0.99, whole=0.5, core=0.25, enhancing=0.125, another_region_with_a_long_name=0.1))
        bar.on_message("a sentence")
    said, err = capsys.readouterr()
    lines = err.splitlines()
    assert said == "a sentence\n" and len(lines) in (20, 21) and "step 0:" in lines[0]
    assert all(line.endswith("waiting for data") for line in lines), "long lines are not broken"
