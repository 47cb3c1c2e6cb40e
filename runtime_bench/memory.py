"""Peak memory of this process; a worker that has loaded one model and run it once says what that needs."""

import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def own_peak() -> int:
    """Peak resident set of this process in bytes, 0 where the system does not tell."""
    if STATUS.is_file():
        # Not getrusage: on Linux its ru_maxrss starts at the peak of the process that spawned this one.
        fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
        return 1024 * int(fields["VmHWM"].split()[0]) if "VmHWM" in fields else 0
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 0
