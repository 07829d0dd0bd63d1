"""Fill in the generated tables, write the command line page, and name the pages that changed."""

import sys

from documents.pages import UnknownTableError, find_changes, make_pages, write_pages


def main() -> None:
    """Exit code 1 where a page asks for a table that there is not."""
    try:
        pages = make_pages()
    except UnknownTableError as error:
        sys.exit(str(error))
    for page in write_pages(find_changes(pages)):
        sys.stdout.write(f"{page.as_posix()}\n")


if __name__ == "__main__":
    main()
