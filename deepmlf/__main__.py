"""`python -m deepmlf`: the command line, where its script is not on the path."""

from deepmlf.cli import main

main()
