"""How fast the clean-up of one node removes expired sessions and old lines of the audit log."""

import time

from harness.children import Failed
from harness.load.server import START_LIMIT_S, Server
from harness.metrics import Metrics
from harness.postgres import Cluster

from .counters import STATISTICS_S

LIMIT_S = 600
# The pause after each batch (BATCH_PAUSE of src/auth/cleanup.rs).
PAUSE_S = 0.02
OLD = (
    "UPDATE refresh_tokens SET expires_at = now() - interval '1 d', expiry_check_at = now() - interval '1 d'",
    "UPDATE auth_events SET at = at - interval '1 y'",
    "VACUUM ANALYZE",
    "CHECKPOINT",
)
STATEMENTS = {"clean_expired_sessions": "refresh_tokens", "clean_events": "auth_events"}


def measure(server: Server, cluster: Cluster, database: str) -> list[str]:
    """Makes every row old, starts the server, and waits for its first clean-up. `server` has stopped."""
    for sql in OLD:
        cluster.execute(sql, limit_s=LIMIT_S, database=database)
    before = removed(cluster, database)
    server.start(START_LIMIT_S)
    metrics = first_run(server)
    server.stop()
    time.sleep(STATISTICS_S)
    after = removed(cluster, database)
    lines = [f"{'clean-up, one node':30}{'rows':>10}{'a batch, ms':>14}{'rows a second':>16}"]
    for statement, table in STATEMENTS.items():
        rows = after[table] - before[table]
        batches = metrics.value("staunch_db_query_seconds_count", query=statement)
        seconds = metrics.value("staunch_db_query_seconds_sum", query=statement)
        rate = rows / (seconds + batches * PAUSE_S)
        lines.append(f"{table:30}{rows:>10}{1000 * seconds / batches:>14.1f}{rate:>16.0f}")
    return lines


def first_run(server: Server) -> Metrics:
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        metrics = server.metrics()
        if metrics.value("staunch_cleanup_runs_total", result="success"):
            return metrics
        time.sleep(0.5)
    raise Failed(f"no clean-up within {LIMIT_S} s:\n{server.last_lines()}")


def removed(cluster: Cluster, database: str) -> dict[str, int]:
    rows = cluster.query("SELECT relname, n_tup_del FROM pg_stat_user_tables", database)
    return {table: int(count) for table, count in rows}
