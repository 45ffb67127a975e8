"""The command line: commands only, no logic; every heavy import happens inside a command."""

from kernelwright.cli.app import main

__all__ = ["main"]
