"""What CI installs, by hash, as a bill of materials, and against the known vulnerabilities.

python scripts/supply_chain.py lock | sbom | audit

lock   writes requirements.lock: every wheel that pip takes here for .[all,dev] at constraints.txt, with its
       SHA-256. CI on such a platform installs these files and no others.
sbom   writes sbom.cdx.json (CycloneDX) of the environment .venv.
audit  asks PyPI for the known vulnerabilities of requirements.lock; exit code 1 when there is one. Where PyPI
       does not answer, it says so and that is all.

sbom and audit install their tools into .venv-audit. QNAS_PIP_ARGS: more arguments for pip install.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK, BILL, TOOLS = ROOT / "requirements.lock", ROOT / "sbom.cdx.json", ROOT / ".venv-audit"
HERE = f"{platform.system()} {platform.machine()}, Python {'.'.join(platform.python_version_tuple()[:2])}"


def pip(python: Path | str, *arguments: str) -> None:
    """Run `pip install`."""
    more = os.environ.get("QNAS_PIP_ARGS", "").split()
    command = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *more, *arguments]
    subprocess.run(command, check=True, cwd=ROOT)


def tool(name: str) -> str:
    """The path of a tool of the extra `audit`."""
    path = TOOLS / "bin" / name
    if not path.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(TOOLS)], check=True)
        pip(TOOLS / "bin" / "python", "cyclonedx-bom>=7.2", "pip-audit>=2.9")
    return str(path)


def lock() -> None:
    """Write requirements.lock."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip(sys.executable, "--dry-run", "--ignore-installed", "--report", str(report),
            "-c", "constraints.txt", ".[all,dev]")  # fmt: skip
        installs = json.loads(report.read_text())["install"]
    lines = {}
    for each in installs:
        name, version = each["metadata"]["name"], each["metadata"]["version"]
        if name != "qnas":
            digest = each["download_info"]["archive_info"]["hashes"]["sha256"]
            lines[name.lower()] = f"{name}=={version} --hash=sha256:{digest}\n"
    made = f"# {HERE}\n# Made by: python scripts/supply_chain.py lock\n"
    LOCK.write_text(made + "".join(lines[name] for name in sorted(lines)), encoding="utf-8")


def sbom() -> None:
    """Write sbom.cdx.json."""
    subprocess.run(
        [tool("cyclonedx-py"), "environment", "--output-reproducible", "--pyproject", "pyproject.toml",
         "-o", str(BILL), ".venv/bin/python"],
        check=True, cwd=ROOT,
    )  # fmt: skip


def audit() -> int:
    """Print what is known of the locked versions, and return the exit code."""
    command = [tool("pip-audit"), "-r", str(LOCK), "--no-deps", "--disable-pip", "-f", "json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    try:
        known = json.loads(result.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        known = []
    skipped = [each["name"] for each in known if "skip_reason" in each]
    found = [(each, hole) for each in known for hole in each.get("vulns", ())]
    for each, hole in found:
        fixed = ", ".join(hole["fix_versions"]) or "no version yet"
        print(f"{each['name']} {each['version']}: {hole['id']}, fixed in {fixed}")
    print(f"audit: {len(known) - len(skipped)} packages asked for, {len(found)} known vulnerabilities")
    if skipped or not known:
        print(f"audit: NOT DONE for {len(skipped) or 'any'} packages: PyPI tells nothing of them here")
    return 1 if found else 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["lock"]:
            lock()
        case ["sbom"]:
            sbom()
        case ["audit"]:
            sys.exit(audit())
        case _:
            sys.exit(__doc__)
