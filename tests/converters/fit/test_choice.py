"""The rule, the Pareto front and the budget of fit, on made-up figures."""

from dataclasses import replace

import pytest

from edgel3_tflm.converters.fit.budget import DEFAULT_BOARD, Budget, Limits
from edgel3_tflm.converters.fit.choice import Judged, choose, find_front
from edgel3_tflm.converters.fit.measurement import Measurement
from edgel3_tflm.device.boards import find_board
from edgel3_tflm.device.estimate import Battery, Range, Work
from edgel3_tflm.device.footprint import Footprint
from edgel3_tflm.drift.figures import EmbeddingDrift
from edgel3_tflm.errors import EdgeL3Error
from edgel3_tflm.evaluation.probe import FoldResult

DRIFT = EmbeddingDrift(0.999, 0.99, 30.0)
FREE = Budget.of(Limits(milliseconds=1e9))


def measured(
    network: str, right: int | None, cosine: float, cycles: float = 1e6, flash: int = 1000
) -> Measurement:
    folds = [] if right is None else [FoldResult(1, right, 100)]
    footprint = Footprint({"model": flash}, {"arena": 100}, "made up")
    work = Work(0, Range(cycles / 2, cycles), Range(cycles, cycles), "made up")
    return Measurement(
        network, network, "made up", True, "file", "", 0.0, footprint, work, folds, cosine,
        DRIFT, None,
    )  # fmt: skip


def judge(*found: Measurement, budget: Budget = FREE) -> list[Judged]:
    needs = [budget.estimate(each.footprint, each.work) for each in found]
    return [
        Judged(each, need, budget.find_excesses(need))
        for each, need in zip(found, needs, strict=True)
    ]


def winner_of(*found: Measurement, budget: Budget = FREE) -> str | None:
    choice = choose(judge(*found, budget=budget))
    return choice and choice[0].figures.network


def test_a_clearly_better_accuracy_wins() -> None:
    assert winner_of(measured("best", 90, 0.5), measured("nearest", 70, 0.9)) == "best"


def test_within_the_interval_of_the_best_the_cosine_decides() -> None:
    best = measured("best", 90, 0.5)
    assert best.interval_percent == pytest.approx((82.56, 94.48), abs=0.005)  # Wilson's, by hand
    assert winner_of(best, measured("nearest", 83, 0.9)) == "nearest"
    assert winner_of(best, measured("nearest", 82, 0.9)) == "best"


def test_equal_cosines_leave_it_to_the_time() -> None:
    slow = measured("slow", 90, 0.9004)
    fast = measured("fast", 88, 0.8996, cycles=5e5)
    assert winner_of(slow, fast) == "fast"


def test_without_labels_the_cosine_decides_and_then_the_time() -> None:
    found = measured("far", None, 0.7), measured("near", None, 0.9)
    assert winner_of(*found) == "near"
    assert winner_of(*found, measured("fast", None, 0.9, cycles=1e5)) == "fast"


def test_what_exceeds_the_budget_cannot_win() -> None:
    budget = Budget.of(Limits(flash_bytes=1000))
    small, large = measured("small", 50, 0.5), measured("large", 90, 0.9, flash=1001)
    assert winner_of(small, large, budget=budget) == "small"
    assert winner_of(large, budget=budget) is None
    assert judge(large, budget=budget)[0].excesses == ("flash 1,001 of 1,000 bytes",)


def test_the_front_leaves_out_what_another_candidate_beats_in_everything() -> None:
    best = measured("best", 90, 0.9)
    fast = measured("fast", 80, 0.9, cycles=1e5)
    small = measured("small", 70, 0.9, flash=10)
    beaten = measured("beaten", 79, 0.9, cycles=2e5)
    front = find_front(judge(best, fast, small, beaten, replace(best, network="twin")))
    assert [each.figures.network for each in front] == ["best", "fast", "small", "twin"]


def test_a_board_gives_the_budget_and_a_limit_replaces_it() -> None:
    portenta = find_board("portenta_h7_m7")
    own = Budget.of(Limits("portenta_h7_m7"))
    assert (own.flash_bytes, own.ram_bytes) == (
        portenta.flash_budget_bytes,
        portenta.ram_budget_bytes,
    )
    less = Budget.of(Limits("portenta_h7_m7", flash_bytes=1000))
    assert (less.flash_bytes, less.ram_bytes) == (1000, portenta.ram_budget_bytes)


def test_limits_without_a_board_leave_the_rest_free() -> None:
    budget = Budget.of(Limits(ram_bytes=99))
    assert (budget.flash_bytes, budget.ram_bytes) == (None, 99)
    assert budget.board.clock_hz == find_board(DEFAULT_BOARD).clock_hz
    (found,) = judge(measured("any", 1, 0.1, flash=2**30), budget=budget)
    assert found.excesses == ("RAM 100 of 99 bytes",)


def test_the_slow_end_of_the_estimate_is_within_the_time() -> None:
    (found,) = judge(measured("any", 1, 0.1, cycles=480e6))
    slowest = 1000 * found.needs.seconds.high
    assert slowest > 1000 * found.needs.seconds.low
    for limit, fits in ((slowest, True), (0.999 * slowest, False)):
        budget = Budget.of(Limits(milliseconds=limit))
        assert judge(found.figures, budget=budget)[0].fits is fits


def test_a_battery_must_allow_the_rate() -> None:
    # 18 mW on average: 8 of 590 mW above sleep, so awake for 0.81 s a minute.
    battery = Battery(18 * 24 * 30, 30)
    for rate, fits in ((0.2, True), (2, False)):
        budget = Budget.of(Limits("nucleo_h743zi", battery=battery, windows_per_minute=rate))
        (found,) = judge(measured("any", 1, 0.1), budget=budget)
        assert found.fits is fits
    assert found.excesses[0].startswith("battery for 0.8")


@pytest.mark.parametrize(
    ("limits", "part"),
    [
        (Limits(), "expected a board"),
        (Limits("teensy99"), "unknown board 'teensy99'"),
        (Limits(flash_bytes=0), "flash bytes above 0"),
        (Limits(milliseconds=float("nan")), "milliseconds above 0"),
        (Limits("teensy41", battery=Battery(1e6, 1)), "does not sleep"),
        (Limits("nucleo_h743zi", battery=Battery(1, 30)), "a larger battery"),
    ],
)
def test_limits_that_mean_nothing_are_refused(limits: Limits, part: str) -> None:
    with pytest.raises(EdgeL3Error, match=part):
        Budget.of(limits)
