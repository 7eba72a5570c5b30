"""The part of the Prometheus text format that staunch writes."""

import re

SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'([a-z_]+)="([^"]*)"')

Labels = frozenset[tuple[str, str]]


class Metrics:
    """The samples of one scrape, by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: dict[tuple[str, Labels], float] = {}
        for line in text.splitlines():
            if found := SAMPLE.match(line):
                name, labels, value = found.groups()
                self.samples[name, frozenset(LABEL.findall(labels or ""))] = float(value)

    def value(self, name: str, **labels: str) -> float:
        """One sample; 0 if there is none, because a counter appears with its first event."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def family(self, name: str) -> dict[Labels, float]:
        """All samples of a metric."""
        return {labels: value for (found, labels), value in self.samples.items() if found == name}

    def grown(self, before: "Metrics", name: str) -> dict[Labels, float]:
        """How much each sample of a counter has grown."""
        old = before.family(name)
        return {labels: value - old.get(labels, 0.0) for labels, value in self.family(name).items()}
