"""`python -m meterline`: the command line."""

from meterline.cli import main

main()
