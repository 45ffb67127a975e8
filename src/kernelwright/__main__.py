"""`python -m kernelwright`: the command line."""

from kernelwright.cli import main

main()
