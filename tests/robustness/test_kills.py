"""A campaign that is killed at random moments loses nothing and leaves nothing."""

import random

from kills import killed_campaign


def test_three_kills_lose_nothing_and_leave_nothing(tmp_path):
    outcome = killed_campaign(tmp_path, random.Random(), 3, 8.0, 0, 8)
    assert outcome.faults == [], outcome
    assert outcome.finished
