"""What a snapshot reads, on this machine and on made-up ones, and what two of them say."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from qnas.runtime_bench import machine_state
from qnas.runtime_bench.machine_state import State, between, snapshot

CACHED = (
    machine_state._limits, machine_state._zones, machine_state._coolers, machine_state._throttle_counters,
)  # fmt: skip
SECOND = 1_000_000_000
CALM = State(
    monotonic_ns=0, own_ns=0, cpus=2, frequencies=(2_000_000, 2_000_000), slowest=800_000, fastest=2_500_000,
    governor="performance", turbo=True, temperatures=(40.0, 45.5), throttle_events=5, cooling=0,
    busy_ticks=1000, steal_ticks=10, all_ticks=5000, ticks_per_second=100, waited_ns=0, quota_ns=0, load=0.5,
    memory_available=2**30,
)  # fmt: skip
STAT = """cpu  60 0 0 300 0 0 0 20 0 0
cpu0 10 1 2 100 50 3 4 20 7 0
cpu1 50 0 0 200 0 0 0 0 0 0
cpu10 900 0 0 0 0 0 0 0 0 0
intr 1 2 3
"""


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty machine of the processors 0 and 1, whose files a test writes."""
    monkeypatch.setattr(machine_state, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine_state, "SYS", tmp_path / "sys")
    monkeypatch.setattr(machine_state, "usable_cpus", lambda: frozenset({0, 1}))
    for function in CACHED:
        function.cache_clear()
    yield tmp_path
    for function in CACHED:
        function.cache_clear()


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_this_machine_is_read_and_survives_json() -> None:
    state = snapshot()
    back = State(**json.loads(json.dumps(asdict(state))))
    assert state.cpus == len(os.sched_getaffinity(0))
    assert state.own_ns > 0
    assert asdict(between(back, snapshot()))["seconds"] > 0


def test_a_snapshot_of_many_processors_reads_no_more_files_than_one_of_eight(
    system: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cpu in range(64):
        folder = f"sys/devices/system/cpu/cpu{cpu}"
        write(system, {f"{folder}/cpufreq/scaling_cur_freq": "1", f"{folder}/cpufreq/scaling_governor": "x"})
        write(system, {f"{folder}/thermal_throttle/core_throttle_count": "0"})
        write(system, {f"sys/class/thermal/thermal_zone{cpu}/temp": "1"})
    assert len(files_read(64, monkeypatch)) == len(files_read(8, monkeypatch)) < 50


def files_read(cpus: int, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What the second snapshot of a machine with so many processors reads."""
    monkeypatch.setattr(machine_state, "usable_cpus", lambda: frozenset(range(cpus)))
    snapshot()  # the first one looks for files that later ones know
    read: list[Path] = []
    with monkeypatch.context() as patch:
        text = machine_state._text
        patch.setattr(machine_state, "_text", lambda path: (read.append(path), text(path))[1])
        snapshot()
    return read


def test_own_work_is_nobody_elses() -> None:
    end = replace(CALM, monotonic_ns=SECOND, own_ns=SECOND, busy_ticks=1100, all_ticks=5200)
    assert between(CALM, end).others_share == 0


def test_a_machine_without_any_file_is_unknown_and_not_an_error(system: Path) -> None:
    state = snapshot()
    known = {"monotonic_ns", "own_ns", "cpus", "ticks_per_second", "load", "frequencies", "temperatures"}
    assert all(getattr(state, field.name) is None for field in fields(state) if field.name not in known)
    assert state.frequencies == state.temperatures == ()
    found = between(state, snapshot())
    assert [found.steal_share, found.others_share, found.hottest, found.cooling] == [None] * 4


def test_ticks_are_those_of_the_usable_processors_alone(system: Path) -> None:
    write(system, {"proc/stat": STAT})
    state = snapshot()
    # cpu0: 10 + 1 + 2 + 3 + 4 busy, 20 stolen, 150 idle; guest time (7) is in user. cpu1: 50 busy, 200 idle
    assert (state.busy_ticks, state.steal_ticks, state.all_ticks) == (70, 20, 440)


@pytest.mark.parametrize("stat", ["", "cpu0 1 2 3", "cpu0 a b c d e f g h", "cpuset 1 2 3 4 5 6 7 8", "\xff"])
def test_a_strange_stat_is_unknown(system: Path, stat: str) -> None:
    write(system, {"proc/stat": stat})
    assert snapshot().all_ticks is None


def test_frequencies_governor_turbo_and_heat_of_a_laptop(system: Path) -> None:
    cpus = {
        f"sys/devices/system/cpu/cpu{cpu}/{name}": text
        for cpu in (0, 1, 2)  # the third is not ours
        for name, text in {
            "cpufreq/scaling_cur_freq": f"{1_000_000 + cpu}\n",
            "cpufreq/cpuinfo_min_freq": "400000\n",
            "cpufreq/cpuinfo_max_freq": f"{4_000_000 + cpu}\n",
            "cpufreq/scaling_governor": "powersave\n",
            "thermal_throttle/core_throttle_count": "2\n",
            "thermal_throttle/package_throttle_count": "3\n",
        }.items()
    }
    write(system, cpus)
    write(
        system,
        {
            "sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
            "sys/class/thermal/thermal_zone0/type": "acpitz\n",
            "sys/class/thermal/thermal_zone0/temp": "27800\n",
            "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp\n",
            "sys/class/thermal/thermal_zone1/temp": "61000\n",
            "sys/class/thermal/cooling_device0/type": "Processor\n",
            "sys/class/thermal/cooling_device0/cur_state": "3\n",
            "sys/class/thermal/cooling_device1/type": "Fan\n",
            "sys/class/thermal/cooling_device1/cur_state": "9\n",
            "proc/meminfo": "MemTotal: 10 kB\nMemAvailable:    2048 kB\n",
            "proc/self/schedstat": "100 77 3\n",
            "sys/fs/cgroup/cpu.stat": "usage_usec 9\nnr_throttled 1\nthrottled_usec 5\n",
        },
    )
    state = snapshot()
    assert state.frequencies == (1_000_000, 1_000_001)
    assert (state.slowest, state.fastest) == (400_000, 4_000_001)
    assert (state.governor, state.turbo) == ("powersave", True)
    assert state.temperatures == (61.0, 27.8)  # the processor's first
    assert (state.throttle_events, state.cooling) == (10, 3)
    assert (state.memory_available, state.waited_ns, state.quota_ns) == (2048 * 1024, 77, 5000)


def test_governors_that_differ_are_all_named_and_boost_says_turbo(system: Path) -> None:
    write(
        system,
        {
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
            "sys/devices/system/cpu/cpufreq/boost": "0\n",
        },
    )
    assert (snapshot().governor, snapshot().turbo) == ("performance, schedutil", False)


def test_a_pi_without_enough_voltage_is_slowed_down(system: Path) -> None:
    write(
        system,
        {"sys/class/hwmon/hwmon1/name": "rpi_volt\n", "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"},
    )
    assert snapshot().cooling == 1


def test_shares_are_of_the_ticks_between_two_states() -> None:
    end = replace(
        CALM, monotonic_ns=2 * SECOND, own_ns=SECOND, busy_ticks=1300, steal_ticks=14, all_ticks=5400,
        waited_ns=SECOND // 4, quota_ns=SECOND // 2, throttle_events=7, frequencies=(1_500_000, 1_500_000),
    )  # fmt: skip
    found = between(CALM, end)
    assert found.seconds == 2
    assert found.steal_share == 4 / 400
    assert found.others_share == (300 - 100) / 400  # of 300 busy ticks 100 are its own second
    assert found.waited_share == 0.25 / 1.25
    assert found.quota_share == 0.25
    assert found.frequency_change == -0.25
    assert found.frequency_share == 1.5 / 2.5
    assert (found.throttle_events, found.cooling, found.hottest) == (2, False, 45.5)


def test_siblings_are_not_others() -> None:
    end = replace(CALM, monotonic_ns=2 * SECOND, own_ns=SECOND, busy_ticks=1300, all_ticks=5400)
    sibling = (replace(CALM, own_ns=7), replace(CALM, own_ns=7 + 2 * SECOND))
    assert between(CALM, end, [sibling]).others_share == 0


def test_a_short_measurement_has_no_shares_of_coarse_ticks() -> None:
    end = replace(CALM, monotonic_ns=SECOND // 2, busy_ticks=1099, all_ticks=5099)
    assert between(CALM, end).others_share is None
