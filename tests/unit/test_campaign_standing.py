"""The ranking of a campaign, without building or timing anything."""

from kernelwright.campaign.standing import Standing, bind
from kernelwright.model import (
    Candidate,
    Family,
    FrozenMap,
    Lineage,
    Measured,
    Reason,
    Rejected,
    Stage,
)
from kernelwright.search import FamilyView, Request
from kernelwright.space import Space

SOURCE = "// @tune BLOCK = 1, 2, 4, 8\n"
FAMILY = Family("made up", "cpp", "kernel", SOURCE, Lineage("test"))
WRONG = Rejected(Stage.ACCEPT, Reason.WRONG_RESULT, "one call in ten")


def _standing():
    view = FamilyView.of(FAMILY, Space.of(SOURCE))
    return Standing({FAMILY.identity: FAMILY}, (view,))


def _request(block):
    return Request(FAMILY.identity, FrozenMap({"BLOCK": block}))


def _measure(standing, block, value):
    request = _request(block)
    return standing.record(request, bind(FAMILY, request.values), Measured(()), value)


def test_the_least_value_leads_and_the_earliest_of_equals():
    standing = _standing()
    assert _measure(standing, 1, 1.0)
    assert _measure(standing, 2, 0.8)
    assert not _measure(standing, 4, 0.8)
    assert standing.leader.request == _request(2)
    assert [leader.request for leader in standing.ranked()] == [
        _request(2), _request(4), _request(1),
    ]  # fmt: skip


def test_a_leader_that_fails_later_is_a_rejection_for_the_search():
    standing = _standing()
    _measure(standing, 1, 1.0)
    _measure(standing, 2, 0.5)
    standing.withdraw(_request(2), WRONG)
    assert standing.leader.request == _request(1)
    assert not standing.is_measured(_request(2))
    assert standing.view(10).rejected_of(FAMILY.identity) == [_request(2).values]
    assert standing.verdicts[-1] == WRONG
    assert len(standing.tried) == 2


def test_outcomes_since_the_last_gain_are_counted():
    standing = _standing()
    for block, value in ((1, 1.0), (2, 0.9), (4, 0.8999), (8, 1.2)):
        _measure(standing, block, value)
    assert standing.since_gain() == 2


def test_after_a_failed_finalist_other_families_come_first():
    standing = Standing({}, ())
    for number, (family, value) in enumerate([("a", 1.0), ("a", 1.1), ("b", 2.0), ("c", 3.0)]):
        candidate = Candidate("cpp", "kernel", f"{number}", FrozenMap(), family, Lineage("recipe"))
        request = Request(family, FrozenMap({"N": number}))
        standing.record(request, candidate, Measured(()), value)

    def best(*failed):
        leader = standing.finalist(failed)
        assert leader is not None
        return leader.value

    assert best() == 1.0
    standing.withdraw(standing.ranked()[0].request, Rejected(Stage.ACCEPT, Reason.CRASH, ""))
    assert best("a") == 2.0
    assert best("a", "b") == 3.0
    assert best("a", "b", "c") == 1.1
    assert Standing({}, ()).finalist(()) is None
