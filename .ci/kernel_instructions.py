"""Counts the instructions per lane-round of the hash kernel, from the assembly that the compiler wrote.

A lane-round is one Blowfish round of one lane, with its share of the work between blocks. Next to other load a core
limits a thread to a number of instructions, so each one costs throughput. Prints a table, and fails if a count exceeds
its ceiling or if a lane count is missing.
"""

import re
import sys
from pathlib import Path

LOOKUPS_PER_LANE = 4 * 16
# name of the code -> pattern of the function's symbol, and the ceilings for 1 to 8 lanes
CEILINGS = {
    "bextr": (r"assembly5bextr", [10.8, 10.6, 10.6, 10.6, 10.6, 11.1, 11.6, 11.9]),
    "pext": (r"assembly4pext", [10.8, 10.6, 10.6, 10.6, 10.6, 11.1, 11.6, 11.9]),
    "portable": (r"(interleave|State)6expand", [13.6, 15.3, 15.3, 15.3, 15.3, 13.4, 13.4, 13.4]),
}
LABEL = re.compile(r"^(\.L\w+):")
FUNCTION = re.compile(r"^([A-Za-z_][\w.$]*):")
BRANCH = re.compile(r"^j\w+\s+(\.L\w+)$")
# reads an address of two registers
LOOKUP = re.compile(r"\(%r\w+,%r\w+(,\d)?\), ")


def functions(text: str) -> dict[str, list[str]]:
    """The lines of each function."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if match := FUNCTION.match(line):
            lines = found.setdefault(match[1], [])
        else:
            lines.append(line)
    return found


def longest_inner_loop(lines: list[str]) -> list[str]:
    """The instructions of the longest loop that contains no other loop."""
    labels: dict[str, int] = {}
    instructions: list[str] = []
    longest: list[str] = []
    inner_from = 0
    for line in map(str.strip, lines):
        if match := LABEL.match(line):
            labels[match[1]] = len(instructions)
        elif line and line[0] not in ".#":
            instructions.append(line)
            match = BRANCH.match(line)
            if match and match[1] in labels and labels[match[1]] >= inner_from:
                longest = max(longest, instructions[labels[match[1]] :], key=len)
                inner_from = len(instructions)
    return longest


def main() -> None:
    """Reads the assembly file that is the only argument."""
    found: dict[tuple[str, int], float] = {}
    for symbol, lines in functions(Path(sys.argv[1]).read_text()).items():
        for name, (pattern, _) in CEILINGS.items():
            if re.search(pattern, symbol):
                loop = longest_inner_loop(lines)
                lanes, rest = divmod(sum(bool(LOOKUP.search(line)) for line in loop), LOOKUPS_PER_LANE)
                if lanes and not rest:
                    found[name, lanes] = len(loop) / 16 / lanes
    failed = False
    print("instructions per lane-round (ceiling)\n| lanes | " + " | ".join(CEILINGS) + " |")
    for lanes in range(1, 9):
        cells = []
        for name, (_, ceilings) in CEILINGS.items():
            count, ceiling = found.get((name, lanes)), ceilings[lanes - 1]
            failed |= count is None or count > ceiling
            cells.append(f"{'none' if count is None else format(count, '.2f')} ({ceiling})")
        print(f"| {lanes} | " + " | ".join(cells) + " |")
    if failed:
        sys.exit("the kernel has more instructions than before, or code for a number of lanes was not found")


if __name__ == "__main__":
    main()
