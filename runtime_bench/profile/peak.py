"""How fast a machine can be: what `roofline` measures and profiles are set beside."""

from dataclasses import dataclass

from qnas.documents.reading import Count, Positive, Text


@dataclass(frozen=True)
class Peak:
    """10^9 operations or bytes a second, which `runtime` reached on `threads` threads."""

    integer_gops: Positive  # 8 bits by 8 bits
    float_gflops: Positive  # float32
    gigabytes: Positive  # main memory, reading and writing together
    threads: Count
    runtime: Text
