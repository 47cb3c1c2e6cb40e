"""Rounds, bursts, and the environment that they are measured in."""

from pathlib import Path

import pytest

from qnas.errors import ModelError
from qnas.runtime_bench import environment
from qnas.runtime_bench.measure import (
    BURST,
    FEWEST_ROUNDS,
    LONGEST_BURST,
    Schedule,
    burst_length,
    measure,
    warm_up,
)


class Clockwork:
    """A runner whose inferences take `times` ns, the last for ever; it writes down who ran how often."""

    def __init__(self, name: str, log: list[str], *times: int, dies_after: int = 10**9) -> None:
        self.name, self.log, self.times, self.left = name, log, list(times), dies_after

    def run(self, count: int) -> list[int]:
        self.log.append(f"{self.name}{count}")
        self.left -= count
        if self.left < 0:
            raise ModelError(f"{self.name} died")
        return [self.times.pop(0) if len(self.times) > 1 else self.times[0] for _ in range(count)]

    def close(self) -> None: ...


def test_runs_are_spread_over_rounds_that_go_forwards_and_backwards() -> None:
    log: list[str] = []
    runners = [Clockwork(name, log, 10**8) for name in "AB"]
    told: list[float] = []
    samples = measure(runners, Schedule(runs=3, warmup=2), told.append)
    assert log == ["A2", "B2", "A1", "B1", "B1", "A1", "A1", "B1"]
    assert [each.rounds for each in samples] == [((10**8,),) * 3] * 2
    assert told == pytest.approx([1 / 3, 2 / 3, 1])


def test_fifty_runs_of_a_fast_model_make_twenty_rounds_of_bursts() -> None:
    log: list[str] = []
    (measured,) = measure([Clockwork("A", log, 10**6)], Schedule(runs=50, warmup=1))
    assert len(measured.rounds) == FEWEST_ROUNDS
    assert sum(map(len, measured.rounds)) == 50


def test_the_value_of_a_round_is_the_median_of_its_burst() -> None:
    runner = Clockwork("A", [], 4 * 10**6, 4 * 10**6, 1, 2, 9, 4, 4, 4, 5)
    (measured,) = measure([runner], Schedule(runs=60, warmup=2))
    assert measured.rounds[0] == (1, 2, 9)
    assert measured.values[:2] == (2, 4)


def test_a_burst_lasts_ten_milliseconds_within_bounds() -> None:
    assert burst_length(BURST) == 1
    assert burst_length(BURST // 4) == 4
    assert burst_length(10 * BURST) == 1
    assert burst_length(1) == LONGEST_BURST


def test_a_timed_plan_gives_every_model_its_time_and_the_fewest_rounds() -> None:
    slow, fast = measure(
        [Clockwork("A", [], 10**8), Clockwork("B", [], 10**7)], Schedule(seconds=0.5, warmup=1)
    )
    assert sum(map(sum, fast.rounds)) >= 0.5 * 10**9
    assert len(slow.rounds) == len(fast.rounds) == 50
    (short,) = measure([Clockwork("A", [], 10**9)], Schedule(seconds=0.5, warmup=1))
    assert len(short.rounds) == FEWEST_ROUNDS


def test_warming_up_ends_when_two_windows_agree() -> None:
    log: list[str] = []
    falling = [90 * 10**6, 80 * 10**6, 60 * 10**6, 50 * 10**6]
    assert warm_up(Clockwork("A", log, *falling)) == 50 * 10**6
    assert log == ["A1"] * 5


def test_a_model_that_dies_is_left_out_and_the_others_go_on() -> None:
    log: list[str] = []
    runners = [Clockwork("A", log, 10**8), Clockwork("B", log, 10**8, dies_after=2)]
    living, dead = measure(runners, Schedule(runs=4, warmup=1))
    assert len(living.rounds) == 4
    assert (dead.rounds, dead.failure) == ((), "B died")


def test_measuring_ends_when_every_model_has_died() -> None:
    (dead,) = measure([Clockwork("A", [], 10**8, dies_after=0)], Schedule(runs=4, warmup=1))
    assert dead.failure == "A died"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\n", "Fast CPU @ 3 GHz"),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd0c\nCPU implementer\t: 0x41\n", "ARM 0x41 0xd0c"),
    ],
)
def test_processor_is_named_as_the_kernel_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, expected: str
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(environment, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(environment, "GOVERNOR", tmp_path / "absent")
    found = environment.current_environment("a runtime 1")
    assert (found.cpu, found.governor, found.runtime) == (expected, None, "a runtime 1")
