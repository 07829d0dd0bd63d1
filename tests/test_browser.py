"""The driver of Chromium, on pages that leave by themselves."""

import pytest

from browser import Browser, PageLeft, find_browser

PAGES = 40


@pytest.fixture
def browser(tmp_path):
    if (program := find_browser()) is None:
        pytest.skip("no Chromium is installed")
    for number in range(PAGES):
        leave = f"setTimeout(() => location = '{number + 1}.html', {number % 7})"
        (tmp_path / f"{number}.html").write_text(f"<script>{leave}</script>")
    (tmp_path / f"{PAGES}.html").write_text("<title>end</title>")
    (tmp_path / "still.html").write_text("<title>still</title>")
    with Browser(program, tmp_path / "profile") as driver:
        yield driver


def test_waiting_goes_on_through_pages_that_are_left(browser, tmp_path):
    browser.open(tmp_path / "0.html")
    browser.wait("document.title === 'end'")
    assert browser.run("location.pathname").endswith(f"/{PAGES}.html")


def test_waiting_goes_on_where_the_condition_itself_leaves_the_page(browser, tmp_path):
    browser.open(tmp_path / "still.html")
    browser.wait(f"document.title === 'end' || (location = '{PAGES}.html', new Promise(() => 0))")
    assert browser.run("document.title") == "end"


def test_a_script_whose_page_is_left_says_so(browser, tmp_path):
    leave = f"(location = '{PAGES}.html', new Promise(() => 0))"
    browser.open(tmp_path / "still.html")
    with pytest.raises(PageLeft):
        browser.run(leave)
    browser.open(tmp_path / "still.html")
    browser.leave(leave)
    browser.wait("document.title === 'end'")


def test_a_script_that_fails_is_another_error(browser, tmp_path):
    browser.open(tmp_path / f"{PAGES}.html")
    with pytest.raises(RuntimeError, match="nothing is not defined") as raised:
        browser.wait("nothing")
    assert not isinstance(raised.value, PageLeft)
