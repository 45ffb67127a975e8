"""Building blocks in C++ that are pasted into generated sources."""

from pathlib import Path

_FOLDER = Path(__file__).parent
SHUFFLE = _FOLDER / "shuffle.hpp"
CONTRACTION_TILE = _FOLDER / "contraction_tile.hpp"
CONTRACTION_PAIRS = _FOLDER / "contraction_pairs.hpp"
CONTRACTION_DOT = _FOLDER / "contraction_dot.hpp"
CONTRACTION_AMX = _FOLDER / "contraction_amx.hpp"
CONTRACTION_PARTS = _FOLDER / "contraction_parts.hpp"
MATRIX_UNIT = _FOLDER / "matrix_unit.hpp"
ATTENTION_STEP = _FOLDER / "attention_step.hpp"
CONTRACTION = _FOLDER / "contraction.hpp"
PAIRS_CUDA = _FOLDER / "pairs.cu"
PAIRS = _FOLDER / "pairs.hpp"
WINDOWS = _FOLDER / "windows.hpp"
