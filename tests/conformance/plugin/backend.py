"""The smallest build backend (PEP 517): a wheel is a zip file with three texts of metadata."""

import zipfile
from pathlib import Path

_INFO = "kernelwright_handmade-1.0.dist-info"
_TEXTS = {
    "METADATA": "Metadata-Version: 2.1\nName: kernelwright-handmade\nVersion: 1.0\n",
    "WHEEL": "Wheel-Version: 1.0\nGenerator: backend\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "entry_points.txt": (
        "[kernelwright.proposers]\nhandmade = kernelwright_handmade:HandmadeProposer\n"
        "[kernelwright.builders]\nbasic = kernelwright_handmade:BasicBuilder\n"
        "[kernelwright.strategies]\nlargest-first = kernelwright_handmade:LargestFirst\n"
    ),
}


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "kernelwright_handmade-1.0-py3-none-any.whl"
    module = "kernelwright_handmade.py"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w") as wheel:
        wheel.writestr(module, (Path(__file__).parent / module).read_text())
        for file, text in _TEXTS.items():
            wheel.writestr(f"{_INFO}/{file}", text)
        names = [module, *(f"{_INFO}/{file}" for file in _TEXTS), f"{_INFO}/RECORD"]
        wheel.writestr(f"{_INFO}/RECORD", "".join(f"{file},,\n" for file in names))
    return name
