"""Make the environments of the tools, all or those that are named: `python -m judges medpy brats2026`."""

import subprocess
import sys
import venv

from judges.panel import ENVIRONMENTS, JUDGES


def main(names: list[str]) -> None:
    """Install each tool into `.venv-judges/NAME`."""
    if unknown := set(names) - {judge.name for judge in JUDGES}:
        sys.exit(f"no judge is called {', '.join(sorted(unknown))}; there are {', '.join(j.name for j in JUDGES)}")
    for judge in JUDGES:
        if not judge.packages or (names and judge.name not in names):
            continue
        folder = ENVIRONMENTS / judge.name
        venv.create(folder, with_pip=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *judge.packages], check=True)
        print(f"{judge.title}: {folder}")
        if judge.checkout:
            print(
                f"  its code is not on PyPI: set {judge.checkout_variable} to a checkout of github.com/{judge.checkout}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
