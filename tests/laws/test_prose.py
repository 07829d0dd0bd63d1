"""Long sentences and banned idioms in what users read may only become fewer."""

import pytest

from documents.prose import (
    BANNED,
    RECORD,
    count_faults,
    find_all_faults,
    find_faults,
    find_paragraphs,
    lower_record,
    read_record,
    split_sentences,
    to_words,
)

LONG = " ".join(["word"] * 29)


def test_no_file_has_more_long_sentences_and_banned_idioms_than_recorded():
    faults, record = find_all_faults(), read_record()
    risen = {file for file, count in count_faults(faults).items() if count > record.get(file, 0)}
    found = "\n".join(str(fault) for fault in faults if fault.file in risen)
    assert not risen, f"sentences of more than 28 words, or idioms that docs and README do not use:\n{found}"


def test_the_record_is_not_higher_than_what_is_there():
    lowered = lower_record(record := read_record(), count_faults(find_all_faults()))
    assert lowered == record, f"less is left than {RECORD} says; run `python -m documents.prose --record`"


def found_in(text):
    return [fault.what for fault in find_faults(text, "page.md")]


@pytest.mark.parametrize(
    "text",
    [
        f"{LONG}.",
        f"- {LONG}.",
        f"1. Short. {LONG}",
        f"> {LONG}",
        f"!!! note\n    {LONG}.\n",
        f'=== "Linux"\n\n    {LONG}.\n',
        f"{LONG[:60]}\n{LONG[60:]}",
        f"**{LONG}**",
        f"<!-- table: x -->\n\n| a |\n| - |\n\n- {LONG}\n\n<!-- /table -->",
    ],
)
def test_a_long_sentence_is_found_wherever_it_is_prose(text):
    assert found_in(text) == ["29 words"]


@pytest.mark.parametrize(
    "text",
    [
        f"```\n{LONG}\n```",
        f"    ```sh\n    {LONG}\n    ```",
        f"~~~\n```\n{LONG}\n~~~",
        f"# {LONG}",
        f"| {LONG} |",
        f"<!-- {LONG} -->",
        f"`{LONG}`",
        f'[a link]({"x" * 500} "{LONG}")',
        f"![{LONG}](picture.png)",
        f"::: brainsegnet.train\n    options:\n      members: {LONG}\n",
        f"{LONG[:60]}\n\n{LONG[60:]}",
        f"- {LONG[:60]}\n- {LONG[60:]}",
        f"{LONG[:60]}. {LONG[60:]}",
        f"{LONG[:60]}\n```\nx\n```\n{LONG[60:]}",
    ],
)
def test_code_tables_headings_and_targets_are_no_prose(text):
    assert found_in(text) == []


def test_lines_are_counted_from_the_start_of_the_paragraph():
    assert [line for line, _ in find_paragraphs("a\nb\n\nc\n- d\n  e\n")] == [1, 4, 5]
    (fault,) = find_faults(f"# Title\n\nShort.\n\nOne\n{LONG}.", "page.md")
    assert str(fault).startswith("page.md:5: 30 words: One word")


@pytest.mark.parametrize(
    "text",
    [
        "trained anew on two cases.",
        "A network of ours is faster.",
        "One lies upon the other.",
        "The former one is better.",
        "The model as it was then.",
        "Lesion from a probability of 0.3 on.",
        "Who wants the weights takes the parent.",
        "It drops islands.",
        "On 140 grown gliomas.",
        "Sureness of the model.",
        "That was laid to the changes.",
        "The model before had 0.77.",
    ],
)
def test_idioms_that_are_banned_are_found(text):
    assert len(found_in(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Run it before the training.",
        "A tumour that grows slowly.",
        "The table is based on five cases.",
        "Courses of treatment, hours and yours.",
        "Use `--grown` or `islands`.",
        "The former is a folder.",
        "From 0.3 to 0.5.",
    ],
)
def test_plain_words_are_not_banned(text):
    assert found_in(text) == []


def test_every_banned_idiom_has_something_to_write_instead():
    assert all(BANNED.values())


def test_sentences_end_where_they_end():
    assert split_sentences("See e.g. the page, vs. 0.5 of then. Next? Last") == [
        "See e.g. the page, vs. 0.5 of then.",
        "Next?",
        "Last",
    ]
    assert to_words("A *very* [good `x`](y.md) __one__, 2 * 3 * 4.") == "A very good CODE one, 2 * 3 * 4."
