"""The Prometheus text format: as much of it as staunch writes."""

import re
from collections.abc import Iterator, Mapping

SAMPLE = re.compile(r"^([a-z_]+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'([a-z_]+)="([^"]*)"')

Labels = frozenset[tuple[str, str]]


class Metrics(Mapping[tuple[str, Labels], float]):
    """The samples of one scrape, by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: dict[tuple[str, Labels], float] = {}
        for line in text.splitlines():
            if found := SAMPLE.match(line):
                name, labels, value = found.groups()
                self.samples[name, frozenset(LABEL.findall(labels or ""))] = float(value)

    def __getitem__(self, key: tuple[str, Labels]) -> float:
        return self.samples[key]

    def __iter__(self) -> Iterator[tuple[str, Labels]]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def value(self, name: str, **labels: str) -> float:
        """One sample; 0 where there is none, as counters begin with their first event."""
        return self.samples.get((name, frozenset(labels.items())), 0.0)

    def family(self, name: str) -> dict[Labels, float]:
        """All samples of that name."""
        return {labels: value for (found, labels), value in self.samples.items() if found == name}

    def grown(self, before: "Metrics", name: str) -> dict[Labels, float]:
        """By how much each sample of a counter has grown."""
        old = before.family(name)
        return {labels: value - old.get(labels, 0.0) for labels, value in self.family(name).items()}
