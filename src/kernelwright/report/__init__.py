"""Reports: a self-contained page for a run, static pictures, tables."""

from kernelwright.report.evidence import Entry, Evidence, gather
from kernelwright.report.page import headline, render, write_report
from kernelwright.report.svg import roofline_svg, speedup_svg
from kernelwright.report.table import suite_markdown

__all__ = [
    "Entry",
    "Evidence",
    "gather",
    "headline",
    "render",
    "roofline_svg",
    "speedup_svg",
    "suite_markdown",
    "write_report",
]
