"""`python -m brainsegnet` is the command `brainsegnet`."""

from brainsegnet.cli import main

main()
