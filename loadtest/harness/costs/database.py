"""The database of a measurement: its settings, its contents, and what a row takes."""

from harness.postgres import Cluster

AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
# Session number n has the id md5(n), which is as random as a UUID of version 4.
SESSIONS = """
    INSERT INTO refresh_tokens (id, user_id, expires_at, expiry_check_at, ip, user_agent)
    SELECT md5(n::text)::uuid, u.ids[1 + floor(random() * array_length(u.ids, 1))::int],
        now() + interval '7 d', now() + interval '7 d', '10.0.0.1', '{agent}'
    FROM generate_series(1, {sessions}) AS n, (SELECT array_agg(id) AS ids FROM users) AS u
"""
EVENTS = """
    INSERT INTO auth_events (event, outcome, user_id, ip, request_id)
    SELECT 'login', 'success', user_id, ip, gen_random_uuid()::text FROM refresh_tokens
"""
SIZES = """
    SELECT t.relname, '', pg_relation_size(t.oid), s.n_live_tup
    FROM pg_stat_user_tables AS s JOIN pg_class AS t ON t.oid = s.relid
    WHERE t.relname IN ('users', 'refresh_tokens', 'auth_events')
    UNION ALL
    SELECT t.relname, i.relname, pg_relation_size(i.oid), s.n_live_tup
    FROM pg_stat_user_tables AS s JOIN pg_class AS t ON t.oid = s.relid
    JOIN pg_index AS x ON x.indrelid = t.oid JOIN pg_class AS i ON i.oid = x.indexrelid
    WHERE t.relname IN ('users', 'refresh_tokens', 'auth_events')
    ORDER BY 1 DESC, 2
"""


def quieten(cluster: Cluster) -> None:
    """Switches off autovacuum and timed checkpoints, so that only the operations write."""
    for setting in ("autovacuum = off", "checkpoint_timeout = '1h'", "max_wal_size = '16GB'"):
        cluster.execute(f"ALTER SYSTEM SET {setting}")
    cluster.execute("SELECT pg_reload_conf()")


def set_page_images(cluster: Cluster, value: str) -> None:
    """`full_page_writes`: whether the first change of a page after a checkpoint writes the page to the WAL."""
    cluster.execute(f"ALTER SYSTEM SET full_page_writes = {value}")
    cluster.execute("SELECT pg_reload_conf()")


def fill(cluster: Cluster, database: str, sessions: int) -> None:
    """Gives random accounts sessions, each with its line in the audit log."""
    cluster.execute(SESSIONS.format(agent=AGENT, sessions=sessions), limit_s=600, database=database)
    cluster.execute(EVENTS, limit_s=600, database=database)
    cluster.execute("VACUUM ANALYZE", limit_s=600, database=database)


def sizes(cluster: Cluster, database: str) -> list[tuple[str, str, float]]:
    """Bytes per row of each table, and of each of its indexes."""
    rows = cluster.query(SIZES, database)
    return [(table, index, int(size) / max(1, int(count))) for table, index, size, count in rows]
