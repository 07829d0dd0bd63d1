"""Fill in the generated tables, write the command line page, and name the pages that changed."""

import sys

from documents.calibration import draw_diagrams
from documents.pages import UnknownTableError, find_changes, make_pages, write_pages


def main() -> None:
    """Draw the diagrams too. Exit code 1 where a page asks for a table that there is not."""
    try:
        pages = make_pages()
    except UnknownTableError as error:
        sys.exit(str(error))
    for page in [*draw_diagrams(), *write_pages(find_changes(pages))]:
        sys.stdout.write(f"{page.as_posix()}\n")


if __name__ == "__main__":
    main()
