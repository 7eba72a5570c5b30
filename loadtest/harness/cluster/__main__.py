"""Three nodes as one service: trials with a balancer, a store of counters, and PostgreSQL with a standby.

    loadtest/cluster/run all
    loadtest/cluster/run mixed --minutes 30
    loadtest/cluster/run --self-test

loadtest/cluster/README.md says what each trial promises and how to read what it prints. A trial starts
three nodes, HAProxy, Redis or Valkey, and a PostgreSQL primary with a synchronous standby, on the loopback
address and free ports. It ends all of it in every case, and writes loadtest/cluster/results/<date>-<trial>/.

Exit code: 0 every promise was kept; 1 one was broken, or the trial could not run;
130 interrupted.
"""

import sys

from harness.trials import Program

from . import self_test, service
from .all import NAMES

PROGRAM = Program("cluster", __doc__, ["all", *NAMES, "mixed", "patroni"], self_test.run, service.options)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
