import pytest

from kernelwright.errors import CandidateError
from kernelwright.space import Space, parse_declarations

SOURCE = """#include "kernelwright.h"
// @tune BLOCK = 64, 128, 256
  //  @tune UNROLL = 4, 1, 2
// @tune CXX = g++, clang++-19
// @tune FLAGS = "-O3 -march=native", "-O2, -g", ""
// @require BLOCK * UNROLL <= 512 and (UNROLL == 1 or BLOCK < H)
/// @brief not ours, and someone@tune.org = 3 neither
"""


def test_reads_names_values_defaults_and_lines():
    declarations = parse_declarations(SOURCE)
    assert declarations.names == ("BLOCK", "UNROLL", "CXX", "FLAGS")
    by_name = {t.name: t for t in declarations.tunables}
    assert by_name["BLOCK"].values == (64, 128, 256)
    assert by_name["UNROLL"].default == 4
    assert by_name["UNROLL"].ordered == (1, 2, 4)
    assert by_name["CXX"].values == ("g++", "clang++-19")
    assert by_name["FLAGS"].values == ("-O3 -march=native", "-O2, -g", "")
    assert by_name["FLAGS"].line == 5
    assert declarations.constraints[0].names == ("BLOCK", "UNROLL", "H")


def test_python_comments_and_negative_and_hexadecimal_values():
    declarations = parse_declarations("# @tune A = -1, 0x10, +2\n# @require A != -1\n")
    assert declarations.tunables[0].values == (-1, 16, 2)
    assert Space(declarations).size == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n// @tune = 3", "line 2: '@tune' takes NAME = VALUE"),
        ("// @tune BLOCK 3", "line 1: '@tune' takes NAME = VALUE"),
        ("// @tune", "not 'nothing'"),
        ("// @tune BLOCK =", "line 1: the tunable 'BLOCK' lists no values"),
        ("// @tune BLOCK = 1,, 2", "has an empty value"),
        ("// @tune BLOCK = 1, 2,", "has an empty value"),
        ("// @tune BLOCK = 1, 2, 1", "lists 1 twice"),
        ("// @tune BLOCK = 16, 0x10", "lists 16 twice"),
        ("// @tune BLOCK = 1, two", "mixes integers with strings"),
        ("// @tune BLOCK = 1.5", "neither an integer nor quoted text"),
        ('// @tune FLAGS = "-O3', "cannot be read from"),
        ('// @tune FLAGS = "-O3" "-O2"', "cannot be read from"),
        ("// @tune CXX = 1, 2", "the values of 'CXX' are strings"),
        ("// @tune A = 1\n// @tune A = 2", "line 2: the tunable 'A' is declared already (line 1)"),
        ("// @tunable A = 1", "'@tunable' is unknown: write '@tune'"),
        ("// @requires A > 1", "'@requires' is unknown: write '@require'"),
        ("// @require", "is empty"),
        ("// @tune A = 1\n// @require A", "line 2: '@require A' is not a condition: compare"),
        ("// @require A &&  B", "write 'and'"),
        ("// @require A + > 1", "is not a condition"),
        ("// @require A / 2 == 1", "integers are divided by '//'"),
        ("// @require A ** 2 == 1", "not allowed"),
        ("// @require abs(A) == 1", "not allowed"),
        ("// @require __import__('os').system('x') == 0", "not allowed"),
        ("// @require A.b == 0", "not allowed"),
        ("// @require [A][0] == 0", "not allowed"),
        ("// @require (lambda: 1)() == 1", "not allowed"),
        ("// @require A == 1.5", "not allowed"),
        ("// @require A == True", "not allowed"),
        ("// @require min(A) == 1", "fewer than two"),
        ("// @require A in (1, 2)", "not allowed"),
        ("// @tune C = x, y\n// @require C > 1", "cannot compare"),
        ("// @tune C = x, y\n// @require C == 1", "cannot compare"),
        ("// @tune C = x, y\n// @require C * 2 == 4", "needs an integer"),
        ("// @require (A > 1) + 1 > 1", "needs an integer"),
        ("// @require A and B > 1", "needs a condition"),
        ("// @require (A > 1) == (B > 1)", "cannot compare"),
        ("// @require " + "1+" * 300 + "A > 1", "longer than"),
        ("// @require A " + ">" * 300, "is not a condition"),
    ],
)
def test_says_what_is_wrong_and_where(source, message):
    with pytest.raises(CandidateError) as caught:
        parse_declarations(source)
    assert message in str(caught.value)
    assert str(caught.value).startswith("line ")


def test_names_are_held_against_the_signature():
    declarations = parse_declarations(SOURCE)
    declarations.check_names(("T", "H"))
    with pytest.raises(CandidateError, match=r"line 6: .* names 'H', which is neither"):
        declarations.check_names(("T",))
    with pytest.raises(CandidateError, match="line 2: the tunable 'BLOCK' is also a dimension"):
        declarations.check_names(("BLOCK", "H"))


def test_only_installed_compilers_are_left():
    space = Space.of(SOURCE, toolchains=("clang++-19", "clang++"))
    assert space.default()["CXX"] == "clang++-19"
    with pytest.raises(CandidateError, match=r"line 4: no value of 'CXX' .*available icpx"):
        Space.of(SOURCE, toolchains=("icpx",))


def test_a_space_without_a_valid_point_is_an_error():
    with pytest.raises(CandidateError, match=r"satisfies @require 'A > 5' \(line 2\)"):
        Space.of("// @tune A = 1, 2\n// @require A > 5")
    source = "// @tune A = 1, 2\n// @require A * H <= 10"
    assert Space.of(source, {"H": 4}).size == 2
    with pytest.raises(CandidateError, match="at H = 64"):
        Space.of(source, {"H": 64})
    with pytest.raises(CandidateError, match="at H = 64"):
        Space.of("// @tune A = 1\n// @require H < 64", {"H": 64})


def test_dividing_by_zero_breaks_the_constraint():
    space = Space.of("// @tune A = 0, 1, 2\n// @require 4 % A == 0")
    assert [point["A"] for point in space.enumerate()] == [1, 2]
    assert space.problem_with({"A": 0}) == "'@require 4 % A == 0' (line 2) fails for A = 0"
