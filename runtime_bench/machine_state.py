"""What the machine was doing around a measurement: other load, frequency, heat. Unknown is None.

Everything is read from files of Linux, in less than a millisecond; elsewhere, and where an app may not read
them (Android), only little is known. /proc/stat counts in ticks of 10 ms: 100 of them make a share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from qnas.documents.reading import Count, Number, Text

PROC = Path("/proc")
SYS = Path("/sys")
MOST = 8  # processors, thermal zones or coolers that are looked at: some take 20 us each
FEWEST_TICKS = 100
_STEAL, _IDLE, _WAITING_FOR_DISK, _GUEST = 7, 3, 4, 8  # columns of /proc/stat; guests are in user as well
_PROCESSOR_COOLERS = ("processor", "thermal-cpufreq", "cpufreq", "cpu-")


Numbers = Annotated[Sequence[Count], Meta(max_length=1000)]


@dataclass(frozen=True)
class State:
    """The machine at one moment, of the processors that this process may use; JSON can hold it.

    Frequencies are in kHz, temperatures in degrees Celsius; ticks are those of /proc/stat, summed.
    """

    monotonic_ns: Count
    own_ns: Count  # processor time of this process, all threads
    cpus: Count
    frequencies: Numbers  # now, one a processor
    slowest: Count | None
    fastest: Count | None
    governor: Text | None
    turbo: bool | None
    temperatures: Annotated[Sequence[Number], Meta(max_length=1000)]
    throttle_events: Count | None  # thermal, since the machine started
    cooling: Count | None  # steps by which the kernel slows down processors now; low voltage of a Pi is one
    busy_ticks: Count | None  # without those of steal
    steal_ticks: Count | None
    all_ticks: Count | None
    ticks_per_second: Annotated[int, Meta(ge=1, le=10**9)]
    waited_ns: Count | None  # how long the first thread was ready and did not run
    quota_ns: Count | None  # how long the container's quota of processor time held it
    load: Number | None  # mean length of the run queue in the last minute
    memory_available: Count | None  # bytes


@dataclass(frozen=True)
class Conditions:
    """What changed between two states. Shares are of the usable processors' time, unless they say else."""

    seconds: float
    steal_share: float | None
    others_share: float | None  # what other processes took
    waited_share: float | None  # of the time in which the first thread ran or could have run
    quota_share: float | None  # of the time: stopped by the container's quota
    frequency_change: float | None  # of the mean frequency: -0.1 is a tenth less
    frequency_share: float | None  # mean frequency at the end over the highest that there is
    throttle_events: int | None
    cooling: bool | None  # whether the kernel slowed down the processors at the end
    hottest: float | None  # at the end, degrees Celsius
    governor: str | None
    turbo: bool | None
    load: float | None
    memory_available: int | None


def snapshot() -> State:
    """The state now."""
    cpus = usable_cpus()
    few = tuple(sorted(cpus))[:MOST]
    busy, steal, every = _ticks(_text(PROC / "stat"), cpus)
    return State(
        monotonic_ns=time.monotonic_ns(),
        own_ns=time.process_time_ns(),
        cpus=len(cpus),
        frequencies=_numbers(_cpufreq(cpu) / "scaling_cur_freq" for cpu in few),
        slowest=min(_limits(few, "cpuinfo_min_freq"), default=None),
        fastest=max(_limits(few, "cpuinfo_max_freq"), default=None),
        governor=", ".join(sorted({_text(_cpufreq(cpu) / "scaling_governor") for cpu in few} - {""})) or None,
        turbo=_turbo(),
        temperatures=tuple(each / 1000 for each in _numbers(_zones())),
        throttle_events=_sum(_throttle_counters(few)),
        cooling=_sum(_coolers()),
        busy_ticks=busy,
        steal_ticks=steal,
        all_ticks=every,
        ticks_per_second=_ticks_per_second(),
        waited_ns=_field(_text(PROC / "self/schedstat").split(), 1),
        quota_ns=_quota(),
        load=load_average(),
        memory_available=_memory(),
    )


def between(before: State, after: State, siblings: Iterable[tuple[State, State]] = ()) -> Conditions:
    """What happened from `before` to `after`, both of one process.

    `siblings`: such pairs of other processes of the same measurement: their time is not taken by others.
    """
    span = max(after.monotonic_ns - before.monotonic_ns, 1)
    ticks = _difference(before.all_ticks, after.all_ticks)
    if ticks is not None and ticks < FEWEST_TICKS:
        ticks = None
    own = sum(end.own_ns - start.own_ns for start, end in ((before, after), *siblings))
    busy = _difference(before.busy_ticks, after.busy_ticks)
    others = None if busy is None else max(busy - own / 1e9 * after.ticks_per_second, 0)
    return Conditions(
        seconds=span / 1e9,
        steal_share=_share(_difference(before.steal_ticks, after.steal_ticks), ticks),
        others_share=_share(others, ticks),
        waited_share=_waited(before, after, span),
        quota_share=_share(_difference(before.quota_ns, after.quota_ns), span),
        frequency_change=_change(before.frequencies, after.frequencies),
        frequency_share=_share(_mean(after.frequencies), after.fastest),
        throttle_events=_difference(before.throttle_events, after.throttle_events),
        cooling=None if after.cooling is None else after.cooling > 0,
        hottest=max(after.temperatures, default=None),
        governor=after.governor,
        turbo=after.turbo,
        load=after.load,
        memory_available=after.memory_available,
    )


def _waited(before: State, after: State, span: int) -> float | None:
    """The first thread is taken to run whenever the process does, and for no longer than `span`."""
    waited = _difference(before.waited_ns, after.waited_ns)
    ran = min(after.own_ns - before.own_ns, span)
    return None if waited is None else _share(waited, waited + ran)


def usable_cpus() -> frozenset[int]:
    """The numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def load_average() -> float | None:
    """How many processes ran or were ready to, as a mean over the last minute."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on Windows; not allowed to apps
        return None


def _ticks(stat: str, cpus: frozenset[int]) -> tuple[int | None, int | None, int | None]:
    """Busy, steal and all ticks of `cpus`: "cpu0 user nice system idle iowait irq softirq steal ..."."""
    busy = steal = every = 0
    for line in stat.splitlines():
        name, *columns = line.split()
        if not name.startswith("cpu") or not name[3:].isdecimal() or int(name[3:]) not in cpus:
            continue
        counts = [int(each) for each in columns[:_GUEST] if each.isdecimal()]
        if len(counts) < _GUEST:
            return None, None, None
        steal += counts[_STEAL]
        every += sum(counts)
        busy += sum(counts) - counts[_STEAL] - counts[_IDLE] - counts[_WAITING_FOR_DISK]
    return (busy, steal, every) if every else (None, None, None)


def _quota() -> int | None:
    """Version 2 of control groups counts microseconds, version 1 nanoseconds; the root group neither."""
    for name, field, unit in (
        ("fs/cgroup/cpu.stat", "throttled_usec", 1000), ("fs/cgroup/cpu/cpu.stat", "throttled_time", 1),
    ):  # fmt: skip
        words = _text(SYS / name).split()
        if field in words:
            value = _field(words, words.index(field) + 1)
            return None if value is None else value * unit
    return None


def _memory() -> int | None:
    for line in _text(PROC / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            kilobytes = _field(line.split(), 1)
            return None if kilobytes is None else kilobytes * 1024
    return None


def _turbo() -> bool | None:
    off, on = _number(SYS / "devices/system/cpu/intel_pstate/no_turbo"), _number(_cpus() / "cpufreq/boost")
    return not off if off is not None else None if on is None else bool(on)


def _cpus() -> Path:
    return SYS / "devices/system/cpu"


def _cpufreq(cpu: int) -> Path:
    return _cpus() / f"cpu{cpu}/cpufreq"


@cache
def _limits(cpus: tuple[int, ...], name: str) -> tuple[int, ...]:
    return _numbers(_cpufreq(cpu) / name for cpu in cpus)


@cache
def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@cache
def _zones() -> tuple[Path, ...]:
    """Thermometers, those of processors before others."""
    found = list(_listed(SYS / "class/thermal", "thermal_zone*"))
    kinds = {zone: _text(zone / "type").lower() for zone in found}
    found.sort(key=lambda zone: not any(word in kinds[zone] for word in ("cpu", "pkg", "soc")))
    return tuple(zone / "temp" for zone in found[:MOST])


@cache
def _coolers() -> tuple[Path, ...]:
    """How much the kernel slows down the processors, and whether a Raspberry Pi lacks the voltage not to."""
    devices = _listed(SYS / "class/thermal", "cooling_device*")
    kinds = {each: _text(each / "type").lower() for each in devices}
    slowing = [each / "cur_state" for each in devices if kinds[each].startswith(_PROCESSOR_COOLERS)]
    sensors = [each for each in _listed(SYS / "class/hwmon", "hwmon*") if _text(each / "name") == "rpi_volt"]
    return tuple(slowing[:MOST] + [each / "in0_lcrit_alarm" for each in sensors])


@cache
def _throttle_counters(cpus: tuple[int, ...]) -> tuple[Path, ...]:
    names = ("core_throttle_count", "package_throttle_count")
    paths = [_cpus() / f"cpu{cpu}/thermal_throttle/{name}" for cpu in cpus for name in names]
    return tuple(path for path in paths if path.exists())


def _listed(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    return _field([_text(path)], 0)


def _numbers(paths: Iterable[Path]) -> tuple[int, ...]:
    return tuple(value for path in paths if (value := _number(path)) is not None)


def _field(words: Sequence[str], index: int) -> int | None:
    try:
        return int(words[index])
    except (IndexError, ValueError):
        return None


def _sum(paths: Iterable[Path]) -> int | None:
    found = _numbers(paths)
    return sum(found) if found else None


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else max(after - before, 0)


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _mean(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None


def _change(before: Sequence[int], after: Sequence[int]) -> float | None:
    ratio = _share(_mean(after), _mean(before))
    return None if ratio is None else ratio - 1
