"""How fast a machine can be: what `roofline` measures and profiles are set beside."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Peak:
    """10^9 operations or bytes a second, which `runtime` reached on `threads` threads."""

    integer_gops: float  # 8 bits by 8 bits
    float_gflops: float  # float32
    gigabytes: float  # main memory, reading and writing together
    threads: int
    runtime: str
