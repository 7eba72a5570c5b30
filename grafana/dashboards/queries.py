"""The queries of the panels.

In queries, $sel is the selection of job and instance, and $rate the window of a rate. A query that may
find nothing (a route never called, a quantile of no calls) falls back to a zero, so that no panel is
ever empty: `else_zero` for one number, `else_none` for a family of series.
"""

# A query of a panel: its legend and its expression.
Target = tuple[str, str]

AUTH = 'route=~"/api/v1/auth/.*"'
OUR_OWN = 'route!~"/health/.*|/metrics"'
FAILED = 'result=~"overloaded|unavailable|error"'


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Events per second, summed by label."""
    where = where + "," if where else ""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{{where}$sel}}[$rate]))"


def quantile(q: float, metric: str, by: str = "", where: str = "") -> str:
    """A quantile of a histogram; no sample instead of NaN if there were no events."""
    buckets = rate(metric + "_bucket", f"{by}, le" if by else "le", where)
    return f"histogram_quantile({q}, {buckets}) >= 0"


def else_zero(expr: str) -> str:
    return f"({expr}) or vector(0)"


def else_none(expr: str, label: str, word: str = "none yet") -> str:
    return f'({expr}) or on () label_replace(vector(0), "{label}", "{word}", "", "")'


def share(part: str, whole: str) -> str:
    """A share, which is 0 if the whole is 0."""
    return else_zero(f"{part} / ({whole} > 0)")


# Rates by one label of a counter whose label values all exist from the start.
def by(metric: str, label: str) -> list[Target]:
    return [("{{" + label + "}}", rate(metric, label))]


UTILISATION = (
    "sum by (job, instance) (rate(staunch_hash_seconds_count{$sel}[$rate]))"
    " / on (job, instance) staunch_hash_capacity{$sel}"
)
# If other programs use the cores, all lanes are busy although few hashes finish.
LANES = "avg_over_time(staunch_hash_lanes_busy{$sel}[$rate]) / on (job, instance) staunch_hash_lanes{$sel}"
POOL = 'staunch_db_pool_connections{state="used",$sel} / ignoring (state) staunch_db_pool_max{$sel}'
# Since the last success of any node of the job, or since the start if there was none.
CLEANUP_AGE = (
    "time() - max by (job) ((staunch_cleanup_last_success_timestamp_seconds{$sel} > 0)"
    " or on (job, instance) process_start_time_seconds{$sel})"
)
KEY_LEFT = "staunch_signing_key_created_timestamp_seconds{$sel} + 365 * 86400 - time()"
