"""How many refreshes a second one PostgreSQL commits, by pgbench with the refresh's UPDATE and no server."""

from pathlib import Path

from harness.postgres import Cluster

SECONDS = 5
CLIENTS = (1, 8, 32)
REFRESH = r"""\set n random(1, :sessions)
UPDATE refresh_tokens SET generation = generation + 1, rotated_at = now(), last_used_at = now(),
    expires_at = now() + interval '7 d' WHERE id = md5(:n::text)::uuid AND NOT revoked;
"""
MODES = {
    "default": "",
    "commit_delay = 1 ms": "-c commit_delay=1000 -c commit_siblings=3",
    "synchronous_commit = off": "-c synchronous_commit=off",
}


def measure(cluster: Cluster, database: str, sessions: int, folder: Path) -> list[str]:
    script = folder / "refresh.sql"
    script.write_text(REFRESH)

    def run(clients: int, options: str, seconds: int) -> tuple[float, float]:
        """Commits a second, and commits for each flush of the WAL."""
        argv = [str(cluster.program("pgbench")), "--no-vacuum", "--protocol=prepared", f"--file={script}"]
        argv += [f"--client={clients}", f"--time={seconds}", f"--define=sessions={sessions}"]
        before = flushes(cluster)
        printed = cluster.output_of(argv, database, options=options)
        done = int(figure(printed, "number of transactions actually processed:"))
        return figure(printed, "tps ="), done / max(1, flushes(cluster) - before)

    # Writes the first images of the pages.
    run(8, "", SECONDS)
    lines = [f"{'refreshes committed a second':30}" + "".join(f"{f'{clients} clients':>26}" for clients in CLIENTS)]
    for name, options in MODES.items():
        found = [run(clients, options, SECONDS) for clients in CLIENTS]
        lines.append(f"{name:30}" + "".join(f"{f'{rate:.0f} ({each:.1f} a flush)':>26}" for rate, each in found))
    return lines


def figure(printed: str, before: str) -> float:
    return float(printed.partition(before)[2].split()[0])


def flushes(cluster: Cluster) -> int:
    """Flushes of the WAL so far; 0 in PostgreSQL 18, which counts them elsewhere."""
    return int(cluster.query("SELECT coalesce((to_jsonb(w) ->> 'wal_sync')::bigint, 0) FROM pg_stat_wal AS w")[0][0])
