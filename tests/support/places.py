"""Where tests find what they read: the checkout, and the inputs beside it that are never committed."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DATA = Path(os.environ.get("QNAS_DATA", ROOT.parent / "shared" / "data"))
REFERENCE = Path(os.environ.get("QNAS_REFERENCE", ROOT.parent / "shared" / "reference"))
CASES = Path(os.environ.get("QNAS_CASES", ROOT.parent / "shared" / "cases"))
NETWORKS = Path(os.environ.get("QNAS_NETWORKS", ROOT.parent / "shared" / "networks"))
