"""The mean of the weights of trainings that started from the same model.

That model may be named too. The card names all cases.

    python benchmarks/average.py runs/a/last runs/b/last --out runs/mean --half --sources "244 gliomas ..."
"""

import argparse
import sys
from pathlib import Path

from release.averaging import average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="", help="on the card")
    parser.add_argument("--sources", default="", help="of all cases, and their terms")
    parser.add_argument("--half", action="store_true", help="write 16 bits a weight")
    arguments = parser.parse_args()
    named = {"name": arguments.name, "sources": arguments.sources, "half": arguments.half}
    card = average(arguments.models, arguments.out, **named).card
    sys.stdout.write(
        f"{arguments.out}: {card.training.trainings} trainings, {card.training.interpolated:g} of the start\n"
    )


if __name__ == "__main__":
    main()
