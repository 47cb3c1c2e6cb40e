"""Requirements for scripts/test-versions, one a line.

python scripts/version_sets.py oldest | newest | pythons

Everything that pyproject.toml names but torch, whose wheels bring gigabytes of CUDA, and what only
development needs. "oldest" pins each to the version behind its `>=`. "pythons" are the minor versions of the
classifiers, oldest first.
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
LEFT_OUT = {"torch", "ray"}
TOOLS = {"hypothesis", "pytest", "pytest-xdist", "setuptools"}  # of dev, what the tests need
ELSEWHERE = "platform_machine == 'armv7l'"


def floors() -> dict[str, str]:
    """The oldest allowed version of each distribution; the strictest of several floors counts."""
    extras = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + [each for extra in extras if extra != "all" for each in extras[extra]]
    found: dict[str, str] = {}
    for requirement in wanted:
        name, _, floor = requirement.partition(";")[0].strip().partition(">=")
        if ELSEWHERE in requirement or name in LEFT_OUT or (name in unneeded(extras["dev"])):
            continue
        found[name] = max(found.get(name, ""), floor, key=parts)
    return found


def unneeded(development: list[str]) -> set[str]:
    """What only those need who change qnas."""
    return {requirement.partition(">=")[0] for requirement in development} - TOOLS - {"scikit-image"}


def parts(version: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", version)]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["oldest"]:
            print("\n".join(f"{name}=={floor}" for name, floor in floors().items()))
        case ["newest"]:
            print("\n".join(floors()))
        case ["pythons"]:
            print("\n".join(re.findall(r":: Python :: 3\.(\d+)", " ".join(PROJECT["classifiers"]))))
        case _:
            sys.exit(__doc__)
