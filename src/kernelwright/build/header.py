"""Where the generated-code header lives."""

from pathlib import Path


def include_folder() -> Path:
    """Folder that holds `kernelwright.h`."""
    return Path(__file__).parent / "include"
