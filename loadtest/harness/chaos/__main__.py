"""Tries to break what staunch promises, from outside: by HTTP, signals and faults.

    loadtest/chaos/run races --count 10000
    loadtest/chaos/run --self-test

loadtest/chaos/README.md says what each trial promises and how to read what it prints. A trial starts
what it needs on the loopback address and free ports, ends all of it in every case, and writes
loadtest/chaos/results/<date>-<trial>/. It needs Python 3.11 with venv and an installed PostgreSQL;
the first run needs the network for requirements.txt.

Exit code: 0 every promise was kept; 1 one was broken, or the trial could not run;
130 interrupted.
"""

import sys

from harness.trials import Program

from . import self_test

PROGRAM = Program("chaos", __doc__, ["races", "kills", "enumeration", "million", "faults", "rolling"], self_test.run)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
