"""What the load tests, the chaos trials, the comparison, and the checks in grafana/ and .ci/ share."""

from pathlib import Path

# The repository.
ROOT = Path(__file__).resolve().parents[2]
LOADTEST = ROOT / "loadtest"
