"""One sample of the server's own metrics."""

import re
import urllib.request

from common.staunch import Staunch


def value(server: Staunch, name: str, labels: str = "") -> float:
    """0 where there is none: a counter begins with its first event."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    sample = re.escape(name + (f"{{{labels}}}" if labels else ""))
    found = re.search(rf"^{sample} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0
