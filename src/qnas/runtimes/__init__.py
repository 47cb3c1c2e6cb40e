"""The runtimes of exported files: one file each, with its devices, its profiler and its check."""
