"""The sign test that may be looked at after every round: exactness, error rates, power."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelwright.numerics import (
    FEWEST,
    AcceptRule,
    ConfirmRule,
    Decision,
    ScreenRule,
    agreeing_needed,
    evidence,
    sequential_median,
    sequential_ratio,
    surely_above,
    surely_below,
)
from kernelwright.testing.noise import MODELS, quiet, speedups

QUICK = AcceptRule(least=30, most=60)


@pytest.mark.parametrize("power", [1, 3])
@pytest.mark.parametrize(("agreeing", "rounds"), [(0, 0), (3, 5), (0, 7), (14, 20), (40, 60)])
def test_evidence_is_the_integral_that_it_claims_to_be(agreeing, rounds, power):
    p = (np.arange(200_000) + 0.5) / 400_000 + 0.5
    prior = (p * (1 - p)) ** (power - 1)
    wealth = (2 * p) ** agreeing * (2 - 2 * p) ** (rounds - agreeing)
    found = evidence(agreeing, rounds, power)
    assert found == pytest.approx(np.sum(wealth * prior) / np.sum(prior))


@given(st.integers(0, 60))
def test_a_fair_coin_wins_nothing_on_average(rounds):
    mean = sum(
        Fraction(comb(rounds, k), 2**rounds) * Fraction(evidence(k, rounds))
        for k in range(rounds + 1)
    )
    assert float(mean) == pytest.approx(1.0)


def test_wealth_after_a_round_is_the_wealth_before_on_average():
    for rounds in range(40):
        for k in range(rounds + 1):
            later = (evidence(k, rounds + 1) + evidence(k + 1, rounds + 1)) / 2
            assert later == pytest.approx(evidence(k, rounds))


@pytest.mark.parametrize("error", [0.1, 0.025, 0.01])
def test_the_exact_chance_of_ever_refuting_the_truth_is_below_the_error(error):
    walk = np.zeros(402)
    walk[0] = 1
    refuted = 0.0
    for rounds in range(1, 401):
        walk[1:] = (walk[1:] + walk[:-1]) / 2
        walk[0] /= 2
        needed = agreeing_needed(rounds, error)
        refuted += walk[needed:].sum()
        walk[needed:] = 0
    assert 0.4 * error < refuted <= error


def test_the_interval_holds_what_is_not_refuted():
    rng = np.random.default_rng(5)
    for n in (FEWEST, 17, 60):
        samples = list(rng.normal(1, 0.1, n))
        found = sequential_median(samples)
        assert found.low <= found.median <= found.high
        nearly = 1e-9
        assert surely_above(samples, found.low - nearly, 0.025)
        assert not surely_above(samples, found.low, 0.025)
        assert surely_below(samples, found.high + nearly, 0.025)
        assert not surely_below(samples, found.high, 0.025)


def test_too_few_rounds_prove_nothing():
    assert sequential_median([1.0] * 10).median == 1
    with pytest.raises(ValueError, match="too few"):
        sequential_median([1.0] * 9)
    with pytest.raises(ValueError, match="not pairs"):
        sequential_ratio([1.0], [])
    assert not surely_above([2.0] * (FEWEST - 1), 1.0, 0.01)
    assert surely_above([2.0] * FEWEST, 1.0, 0.01)
    with pytest.raises(ValueError, match="cannot agree"):
        evidence(3, 2)


def test_ties_prove_nothing():
    assert not QUICK.wins([1.0] * 60)
    assert not surely_below([1.0] * 60, 1.0, 0.1)


def acceptance(rng, noise, gain=1.0, **more):
    """Whether a win is found, after how many rounds, and whether the interval covers the gain."""
    ratios = speedups(noise, rng, QUICK.most, gain, **more)
    n = next(n for n in range(FEWEST, QUICK.most + 1) if QUICK.done(ratios[:n]))
    interval = sequential_median(ratios[:n])
    return QUICK.wins(ratios[:n]), n, interval.low <= gain <= interval.high


@pytest.mark.parametrize("name", list(MODELS))
def test_equal_kernels_are_hardly_ever_told_apart(name):
    """Before the confirmation, which makes it rarer still; at most 1 in 100, and 3 sigma."""
    rng, trials = np.random.default_rng(len(name)), 400
    found = [acceptance(rng, MODELS[name]) for _ in range(trials)]
    assert sum(win for win, _, _ in found) <= 0.01 * trials + 3 * (0.01 * trials) ** 0.5
    assert sum(covers for _, _, covers in found) >= 0.93 * trials


def test_an_interval_for_a_fixed_number_would_not_do():
    """The simulation can fail: the rule that this one replaced finds differences where none are."""
    from kernelwright.numerics import median_estimate

    rng, wrong = np.random.default_rng(1), 0
    for _ in range(200):
        ratios = speedups(quiet, rng, 60)
        wrong += any(median_estimate(ratios[:n]).low > 1 for n in range(6, 61))
    assert wrong > 0.06 * 200


def test_one_process_per_kernel_would_not_do():
    rng = np.random.default_rng(2)
    wrong = sum(acceptance(rng, quiet, process_sd=0.02)[0] for _ in range(200))
    assert wrong > 0.06 * 200


@pytest.mark.parametrize(("gain", "share"), [(1.02, 0.6), (1.05, 0.99)])
def test_true_gains_are_found(gain, share):
    rng = np.random.default_rng(3)
    found = [acceptance(rng, quiet, gain) for _ in range(200)]
    assert sum(win for win, _, _ in found) >= share * 200
    assert np.median([n for _, n, _ in found]) <= 60


def test_screening_stops_the_hopeless_and_hardly_ever_the_equal():
    rule = ScreenRule()
    assert rule.decide([0.5] * 5) is Decision.CONTINUE
    assert rule.decide([0.5] * 6) is Decision.HOPELESS
    assert rule.decide([0.5] * 5 + [1.2]) is Decision.CONTINUE
    assert rule.decide([0.99] * 6) is Decision.CONTINUE
    assert rule.decide([0.99] * 30) is Decision.STOP
    rng = np.random.default_rng(11)
    lost = 0
    for _ in range(300):
        ratios, decision = [], Decision.CONTINUE
        while decision is Decision.CONTINUE:
            ratios.append(float(np.exp(0.08 * rng.standard_normal())))
            decision = rule.decide(ratios)
        lost += decision is Decision.HOPELESS
    assert lost <= 0.06 * 300


def test_acceptance_needs_rounds_and_precision():
    rule = AcceptRule(least=30, most=60, target=0.01)
    assert not rule.done([1.0] * 29)
    assert rule.precise([1.0] * 30)
    noisy = list(np.random.default_rng(2).uniform(0.5, 1.5, 59))
    assert not rule.done(noisy)
    assert rule.done([*noisy, 1.0])
    assert not rule.precise([*noisy, 1.0])


def test_acceptance_does_not_stop_between_an_interval_above_one_and_a_win():
    n = next(n for n in range(30, 60) if agreeing_needed(n, 0.025) < agreeing_needed(n, 0.01))
    k = agreeing_needed(n, 0.025)
    torn = [1.002] * k + [0.999] * (n - k)
    rule = AcceptRule()
    assert sequential_median(torn).low > 1
    assert rule.precise(torn)
    assert not rule.wins(torn)
    assert not rule.done(torn)


def test_confirming_ends_either_way():
    rule = ConfirmRule()
    assert rule.decide([1.02] * (FEWEST - 1)) is Decision.CONTINUE
    assert rule.decide([1.02] * FEWEST) is Decision.CONFIRMED
    assert rule.decide([0.98] * FEWEST) is Decision.HOPELESS
    assert rule.decide([0.98, 1.02] * 10) is Decision.CONTINUE
    assert rule.decide([0.98, 1.02] * 20) is Decision.STOP
