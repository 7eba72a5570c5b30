"""The rows of the dashboard and their panels: a table, laid out by hand."""

from panels import BLUE, GREEN, ORANGE, RED, STATUS_COLOURS, YELLOW, Json, graph, stat
from queries import (
    AUTH,
    CLEANUP_AGE,
    FAILED,
    KEY_LEFT,
    LANES,
    OUR_OWN,
    POOL,
    UTILISATION,
    by,
    else_none,
    else_zero,
    quantile,
    rate,
    share,
)

WATCH_ALERT = [(0.8, YELLOW), (0.9, RED)]

ROWS: list[tuple[str, list[Json]]] = [
    ("At a glance", [
        stat("Is it ready?", "none",
             "min((staunch_ready{$sel} * on (job, instance) up{$sel}) or up{$sel})",
             "Every selected instance is scraped and answers /health/readiness with 200. If not, check that"
             " PostgreSQL is up and the process is running. Runbooks: StaunchNotReady, StaunchInstanceDown.",
             words={1: ("ready", GREEN), 0: ("NOT READY", RED)}, marks=[(1, GREEN)], base=RED,
             graph="none"),
        stat("Logins a second", "reqps", rate("staunch_logins_total", where='result="success"'),
             "Successful logins per second. Compare with what is usual for this hour of the day.", base=BLUE),
        stat("Logins turned away", "percentunit",
             share(rate("staunch_logins_total", where=FAILED), rate("staunch_logins_total")),
             "Share of logins that were refused or failed for reasons other than the client: overloaded,"
             " unavailable, error. Runbook: StaunchLoginsRefused.",
             marks=[(0.0001, YELLOW), (0.01, RED)], decimals=1),
        stat("Hash engine in use", "percentunit",
             f"max({UTILISATION} or label_replace({LANES}, \"of\", \"lanes\", \"\", \"\"))",
             "Hashes per second as a share of the measured capacity at the configured cost, or busy lanes as a share"
             " of all lanes, whichever is higher; the busiest instance. Above 90 % logins begin to queue. Runbook:"
             " StaunchHashEngineSaturated.",
             marks=[(0.7, YELLOW), (0.9, RED)], decimals=0),
        stat("Login wait", "s", "max(staunch_hash_predicted_wait_seconds{$sel})",
             "How long a login that arrives now would wait before its hash starts. At STAUNCH_HASH_DEADLINE (30 s by"
             " default) logins are refused. Runbook: StaunchLoginWaitLong.",
             marks=[(1, YELLOW), (5, RED)]),
        stat("Auth calls, p95", "s",
             else_zero(quantile(0.95, "staunch_http_request_seconds", where=AUTH)),
             "95 % of the calls to /api/v1/auth are faster than this. It includes the hash, which alone takes about"
             " 0.2 s at cost 12. Runbook: StaunchAuthSlow.",
             marks=[(0.5, YELLOW), (1, RED)]),
        stat("Database pool in use", "percentunit", f"max({POOL})",
             "Connections in use as a share of STAUNCH_DB_POOL_MAX; the fullest instance. Watch at 80 %, act at 90"
             " %. Runbook: StaunchDatabasePoolNearlyFull.",
             marks=WATCH_ALERT, decimals=0),
        stat("Requests over a limit", "percentunit",
             share(rate("staunch_rate_limited_total"), rate("staunch_http_requests_total", where=OUR_OWN)),
             "Share of requests answered 429, without health checks and scrapes. The row Limits shows which limit."
             " Runbook: StaunchRateLimitedOften.",
             marks=[(0.01, YELLOW), (0.1, RED)], decimals=1),
        stat("Addresses over a limit", "short", "sum(staunch_rate_limited_keys{$sel})",
             "Client addresses that would be answered 429 now. One address: a faulty script, or a proxy that is"
             " missing in STAUNCH_TRUSTED_PROXIES. Many: a distributed attack.", base=BLUE, decimals=0),
        stat("Refresh reuse, 24 h", "short",
             'sum(increase(staunch_refreshes_total{result="reuse",$sel}[24h]))',
             "Refresh tokens that were used again after they had been replaced. The token was stolen, or the client"
             " is faulty. The session is ended. Runbook: StaunchRefreshTokenReused.",
             marks=[(0.5, RED)], decimals=0),
        stat("Clean-up age", "percentunit",
             f"max(({CLEANUP_AGE}) / on (job) max by (job) (staunch_cleanup_interval_seconds{{$sel}}))",
             "Time since the last clean-up (before the first: since the start), as a share of"
             " STAUNCH_CLEANUP_INTERVAL. At 100 % the next one is due. Runbook: StaunchCleanupLate.",
             marks=[(1.5, YELLOW), (3, RED)], decimals=0),
        stat("Restarts, 24 h", "short", "sum(changes(process_start_time_seconds{$sel}[24h]))",
             "Restarts of the selected instances. A release causes one per instance; any other is a crash or a kill."
             " Look at the log before the last start. Runbook: StaunchRestarts.",
             marks=[(0.5, YELLOW), (3, RED)], decimals=0),
    ]),
    ("Traffic", [
        graph("Which routes are called, and how often?", "reqps",
              [("{{route}}", else_none(rate("staunch_http_requests_total", "route"), "route"))],
              "Requests per second by route. 'unmatched' is any path that does not exist, usually requested by"
              " scanners.",
              stack=True),
        graph("How are requests answered?", "reqps",
              [("{{status}}", else_none(rate("staunch_http_requests_total", "status"), "status"))],
              "Answers per second by status. 429: over a limit; 503: over capacity, or no database; 499: the client"
              " left before the answer; 500: an error in staunch, see the log.",
              stack=True, colours=STATUS_COLOURS),
        graph("How long do calls take? (p95 by route)", "s",
              [("{{route}}", else_none(quantile(0.95, "staunch_http_request_seconds", "route", AUTH),
                                       "route", "no calls"))],
              "95 % of the calls of a route are faster. Logins and registrations contain a hash; the others should"
              " stay at a few milliseconds even when the hash engine is full. Quick refusals count too, so a low p95"
              " during a flood of 429 and 503 means little.",
              lines=[(0.5, RED)]),
    ]),
    ("Logins and the hash engine", [
        graph("How do logins end?", "reqps", by("staunch_logins_total", "result"),
              "Logins per second by outcome. rejected: wrong password or name, many of them mean guessing; locked:"
              " refused after too many failures under that name; overloaded: refused by the hash engine;"
              " unavailable: the database did not answer.",
              stack=True),
        graph("How near is the hash engine to its limit?", "percentunit",
              [("hashes, {{instance}}", UTILISATION), ("lanes busy, {{instance}}", LANES)],
              "Hashes per second over staunch_hash_capacity, which is measured at start and while several lanes of"
              " each thread are busy. Above 70 %, plan for more cores or nodes; above 90 %, logins queue. If the lanes"
              " are busier than the hashes suggest, other programs use the cores.",
              lines=[(0.7, YELLOW), (0.9, RED)], top=1),
        graph("How long does a login wait for its hash?", "s",
              [("predicted, {{instance}}", "staunch_hash_predicted_wait_seconds{$sel}"),
               ("waited, p95", else_zero(quantile(0.95, "staunch_hash_wait_seconds"))),
               ("refused above, {{instance}}", "staunch_hash_deadline_seconds{$sel}")],
              "How long a login that arrives now would wait, and how long earlier ones did wait. When the prediction"
              " exceeds STAUNCH_HASH_DEADLINE (30 s by default), logins are refused with it as Retry-After.",
              lines=[(1, YELLOW), (5, RED)], top=1),
        graph("What is hashed, what waits?", "short",
              [("being hashed", "sum(staunch_hash_lanes_busy{$sel})"),
               ("waiting", "sum(staunch_hash_queue_depth{$sel})"),
               ("lanes", "sum(staunch_hash_lanes{$sel})")],
              "Passwords being hashed, at most one per lane, and passwords waiting for a lane. A queue that does not"
              " empty for minutes means more logins than the machine can handle.", w=5),
        graph("How long does a hash take?", "s",
              [("{{op}}, p50", else_none(quantile(0.5, "staunch_hash_seconds", "op"), "op", "none")),
               ("{{op}}, p95", else_none(quantile(0.95, "staunch_hash_seconds", "op"), "op", "none"))],
              "verify: a login; hash: a new password, or one that is rehashed at a new cost; foreign: a login with"
              " an imported hash. When all lanes are busy, up to about twice the time of a single hash is usual."
              " More means that other programs use the cores.",
              w=5),
        graph("Who else uses the cores?", "percentunit",
              [("{{instance}}", "staunch_hash_speed_ratio{$sel}")],
              "Hashing speed relative to the best since the start. 100 %: the cores are free. Less: other programs,"
              " other virtual machines of the host, or a CPU limit take a part, and staunch_hash_capacity falls with"
              " it. It changes only while staunch hashes. Below 50 %, the host is overcommitted.",
              lines=[(0.5, YELLOW)], top=1, w=4),
        graph("What does the engine refuse or drop?", "reqps",
              [*by("staunch_hash_rejected_total", "reason"),
               ("client left", rate("staunch_hash_cancelled_total")),
               ("panic", rate("staunch_hash_panics_total"))],
              "predicted_wait: the wait would exceed the deadline; queue_full: STAUNCH_HASH_QUEUE is reached;"
              " expired: it waited past the deadline anyway; client left: the client disconnected. A panic is an"
              " error in staunch.", stack=True, w=5),
        graph("How do registrations end?", "reqps", by("staunch_registrations_total", "result"),
              "Registrations per second by outcome. Many conflicts: someone probes which names exist. Many successes"
              " at once from new addresses: accounts created in bulk.", stack=True, w=5),
    ]),
    ("Limits", [
        graph("Which limit is hit?", "reqps", by("staunch_rate_limited_total", "policy"),
              "429 answers per second by policy: STAUNCH_LIMIT_LOGIN, _REGISTER, _REFRESH, _CLIENTS, _GLOBAL. login:"
              " password guessing; clients: a resource server that asks more often; global: scanners, or a client in"
              " a loop.",
              stack=True, w=6),
        graph("How many addresses are over a limit?", "short",
              [("over a limit", "sum(staunch_rate_limited_keys{$sel})"),
               ("remembered", "sum(staunch_rate_limit_keys{$sel})")],
              "Addresses that are refused now, among those seen recently. Few addresses and many 429: one client in"
              " a loop, or all clients behind one proxy. Many addresses: a distributed attack.", w=6),
        graph("How full is the limiter's table?", "percentunit",
              [("{{instance}}",
                "staunch_rate_limit_keys{$sel} / on (job, instance) staunch_rate_limit_keys_max{$sel}")],
              "Addresses remembered as a share of the maximum. When the table is full, new addresses share limits"
              " with their network. Only an attack from very many addresses fills it.",
              lines=WATCH_ALERT, top=1, w=6),
        graph("How near are connections to their limit?", "percentunit",
              [("{{instance}}",
                "staunch_http_connections{$sel} / on (job, instance) staunch_http_connections_max{$sel}")],
              "Open connections as a share of STAUNCH_CONNECTIONS_MAX. At the limit, the connections that have been"
              " idle longest are closed for new ones.",
              lines=WATCH_ALERT, top=1, w=6),
        graph("Which connections are refused?", "cps",
              [("{{reason}}", else_none(rate("staunch_http_connections_refused_total", "reason"), "reason")),
               ("evicted", rate("staunch_http_connections_evicted_total")),
               ("HTTP/2 requests", rate("staunch_http2_streams_refused_total"))],
              "Connections closed right after they were accepted. per_address: the address already has"
              " STAUNCH_CONNECTIONS_PER_ADDRESS open. If the address is your proxy's, add it to"
              " STAUNCH_TRUSTED_PROXIES. evicted: idle connections that were closed for new ones at"
              " STAUNCH_CONNECTIONS_MAX. HTTP/2 requests: refused because too many requests were open at once;"
              " clients send them again.", stack=True, w=6, h=6),
        graph("Which connections end with an error?", "cps",
              by("staunch_http_connection_errors_total", "kind"),
              "bad_head and head_too_large: request heads that were answered 400 or 431, for example TLS sent to a"
              " plain HTTP port, or a scan. timeout: a head did not end in time, or the client did not read an answer"
              " in time. http2: HTTP/2 protocol errors. broken: the connection ended during a request or an answer."
              " The log's 'connection error' lines give the addresses.",
              stack=True, w=6, h=6),
        graph("How many connections are open?", "short",
              [("{{instance}}", "staunch_http_connections{$sel}")],
              "Connections open now. A step down on all instances at once is a network or a proxy, not staunch.",
              w=6, h=6),
        graph("How many login names are under attack?", "short",
              [("{{instance}}", "staunch_lockout_names{$sel}")],
              "Names with so many failed logins that logins from unknown addresses have to wait. A few: someone"
              " wants these accounts. Thousands: passwords stolen from another service are tried here. Owners at an"
              " address they used before are not affected. Runbook: StaunchManyNamesLocked.", w=6, h=6, decimals=0),
    ]),
    ("Sessions and tokens", [
        graph("How do refreshes end?", "reqps", by("staunch_refreshes_total", "result"),
              "Refreshes per second by outcome. rejected: ended, expired or forged; reuse: an old token was used"
              " again, and its session was ended.", stack=True, w=5),
        graph("Were refresh tokens reused?", "short",
              [("reuse", 'sum(increase(staunch_refreshes_total{result="reuse",$sel}[$rate]))')],
              "Each one is a session that was ended because a replaced refresh token was used again: it was stolen,"
              " or the client does not keep the newest token. The log's 'request' lines of /api/v1/auth/refresh with"
              " status 401 at that time give the addresses.", bars=True, w=4,
              decimals=0),
        graph("How do access token checks end?", "reqps", by("staunch_bearer_checks_total", "result"),
              "Bearer tokens checked per second. Many rejected: expired tokens that clients do not renew, a changed"
              " key or issuer, or forgery.", stack=True, w=5),
        graph("How do introspections end?", "reqps", by("staunch_introspections_total", "result"),
              "Introspected tokens per second by answer. rejected: the caller is not a known client, or sent a wrong"
              " secret.", stack=True, w=5),
        graph("Where do session look-ups go?", "ops", by("staunch_session_lookups_total", "source"),
              "A node trusts the session of an access token for 30 s without a query, or for two seconds while it"
              " receives no notifications of ended sessions (Database). The more look-ups the cache answers, the"
              " less load on the database.", stack=True, w=5),
        graph("How do logouts end?", "reqps", by("staunch_logouts_total", "result"),
              "Logouts per second by outcome. unknown: the token did not belong to a live session; the client gets"
              " 204 anyway.", stack=True, w=5),
        graph("When was the last clean-up?", "s",
              [("since the last one, {{job}}", CLEANUP_AGE),
               ("interval, {{job}}", "max by (job) (staunch_cleanup_interval_seconds{$sel})")],
              "Time since any node of the job last removed ended sessions. A saw-tooth below the interval is good;"
              " above three times the interval the table grows: see the log for clean-up errors.", w=5),
        graph("How do clean-ups end?", "short",
              [("{{result}}", "sum by (result) (increase(staunch_cleanup_runs_total{$sel}[$rate]))")],
              "Clean-up runs by outcome. skipped: another node was running it. An error is logged with its cause."
              " Runbook: StaunchBackgroundTaskFailing.", bars=True, w=4),
        graph("What do clean-ups remove?", "short",
              [("sessions", "sum(increase(staunch_cleanup_removed_total{$sel}[$rate]))")],
              "Sessions that had ended or expired and were removed from the table: about as many as there were"
              " logins a week before.", bars=True, w=4),
        stat("Signing key: time left", "s", f"min({KEY_LEFT})",
             "Time until the oldest signing key in use is one year old, its cryptoperiod (NIST SP 800-57 part 1 rev."
             " 5, 5.3.6). Rotate before that: see the runbook StaunchSigningKeyOld.",
             marks=[(0, ORANGE), (30 * 86400, GREEN)], base=RED, w=3, h=8, graph="none"),
        stat("Hashes renewed", "short", 'sum(increase(staunch_rehashes_total{result="success",$sel}[24h]))',
             "Stored hashes that were rehashed at the configured cost in the last 24 h, each after a login of its"
             " account. Falls to zero when all active accounts have the new cost.",
             base=BLUE, w=3, h=8, decimals=0),
    ]),
    ("Database", [
        graph("How near is the connection pool to its limit?", "percentunit", [("{{instance}}", POOL)],
              "Connections in use over STAUNCH_DB_POOL_MAX at each scrape. Watch at 80 %, act at 90 %: first look"
              " for slow queries, then raise the pool's size.", lines=WATCH_ALERT, top=1),
        graph("What are the pool's connections doing?", "short",
              [("{{state}}", "sum by (state) (staunch_db_pool_connections{$sel})"),
               ("calls waiting", "sum(staunch_db_pool_waiting{$sel})"),
               ("refreshes waiting", "sum(staunch_db_refreshes_waiting{$sel})"),
               ("limit", "sum(staunch_db_pool_max{$sel})")],
              "Connections in use and idle, and calls that wait for one. Calls should not wait while connections are"
              " idle. Refreshes wait for the statements of other refreshes, which they then share."),
        graph("How long do calls wait for a connection?", "s",
              [("p50", else_zero(quantile(0.5, "staunch_db_pool_wait_seconds"))),
               ("p95", else_zero(quantile(0.95, "staunch_db_pool_wait_seconds"))),
               ("p99", else_zero(quantile(0.99, "staunch_db_pool_wait_seconds")))],
              "Shows short congestion that the gauge misses between two scrapes. After 10 ms of waiting the pool"
              " opens another connection; after 2 s a call is answered 503.",
              lines=[(0.01, YELLOW), (2, RED)], top=0.01),
        graph("Are connections opened, refused or abandoned?", "ops",
              [("opened", rate("staunch_db_connections_opened_total", where='result="success"')),
               ("refused", rate("staunch_db_connections_opened_total", where='result="error"')),
               ("client left, {{result}}", rate("staunch_db_abandoned_statements_total", "result"))],
              "Connections opened per second, and statements whose client left. refused: the database is down, or"
              " allows fewer connections than STAUNCH_DB_POOL_MAX. finished: the statement ran to its end, and the"
              " connection was kept. closed: the statement took over a second, and its connection was closed."),
        graph("Which queries run?", "ops",
              [("{{query}}", else_none(rate("staunch_db_query_seconds_count", "query"), "query"))],
              "Queries per second by name. The first line of the statement in PostgreSQL's log and in"
              " pg_stat_activity has the same name.", stack=True, w=6),
        graph("How long do queries take? (p95)", "s",
              [("{{query}}", else_none(quantile(0.95, "staunch_db_query_seconds", "query"),
                                       "query", "no calls"))],
              "95 % of a query's calls are faster. Writes wait for the disk. If one query climbs alone, EXPLAIN it;"
              " if all do, look at the database machine or the network.",
              lines=[(0.1, YELLOW), (1, RED)], top=0.1, w=6),
        graph("How many queries does a request cost?", "short",
              [("queries a request", share(rate("staunch_db_query_seconds_count"),
                                           rate("staunch_http_requests_total", where=AUTH)))],
              "Queries per request to /api/v1/auth. A good login is two, a refresh one, /me mostly none. A rise"
              " without a change of traffic means that a cache does not hit.", w=6, decimals=2, top=2),
        graph("Which queries fail?", "ops",
              [("{{query}}", else_none(rate("staunch_db_errors_total", "query"), "query"))],
              "Failed database calls per second by query. The log has the cause of each. Runbook:"
              " StaunchDatabaseErrors.", stack=True, w=6),
        graph("Does every node receive notifications?", "short",
              [("{{instance}}", "staunch_notify_connected{$sel}")],
              "1 while a node receives notifications of sessions that end on other nodes. At 0 it checks each"
              " session with the database every two seconds, and notices an ended session only then. Runbook:"
              " StaunchNotifyDown.",
              w=12, h=6, top=1, decimals=0),
        graph("How many notifications are received?", "ops", by("staunch_notifications_total", "kind"),
              "Notifications received per second, including the node's own. session: a logout, a session ended, a"
              " token reused; account: all sessions of an account, a new password, an account disabled.",
              stack=True, w=12, h=6),
    ]),
    ("TLS and proxies", [
        graph("How do TLS handshakes end?", "reqps", by("staunch_tls_handshakes_total", "result"),
              "Handshakes on the main listener per second, if STAUNCH_TLS_CERT is set. error: plain HTTP, an old"
              " version, or a client that does not trust the certificate; timeout: not finished within"
              " STAUNCH_HEADER_TIMEOUT.", stack=True, w=6),
        graph("How long is the certificate good?", "s",
              [("{{instance}}", "clamp_min(staunch_tls_certificate_expiry_timestamp_seconds{$sel} - time(), 0)")],
              "Time until the certificate that new connections get expires; 0 without TLS, or when it has expired."
              " Runbook: StaunchCertificateExpiring.", w=6),
        graph("Is a new certificate read?", "short",
              [("{{result}}", "sum by (result) (increase(staunch_tls_reloads_total{$sel}[$rate]))")],
              "Attempts to load the files after one changed or on SIGHUP. error: the pair cannot be used and the"
              " previous one stays in use; the log has the cause. A single error while both files are being replaced"
              " is harmless.", bars=True, w=6, decimals=0),
        graph("How do PROXY headers begin connections?", "reqps", by("staunch_proxy_headers_total", "result"),
              "Connections per second by their PROXY header, if STAUNCH_PROXY_PROTOCOL is on. error: the proxy sends"
              " no header or a broken one; untrusted: a client that is not in STAUNCH_TRUSTED_PROXIES bypasses the"
              " proxy.", stack=True, w=6),
    ]),
    ("Process", [
        graph("How much CPU is used?", "short",
              [("{{instance}}", "rate(process_cpu_seconds_total{$sel}[$rate])"),
               ("limit, {{instance}}", "staunch_cpu_limit_cores{$sel}")],
              "Cores in use, and the CPU limit of a container (0: none). While logins wait, hashing uses all cores at a"
              " low priority, so full cores alone are not a problem.", w=6),
        graph("How often is the CPU limit reached?", "percentunit",
              [("periods, {{instance}}", ("rate(staunch_cpu_throttled_periods_total{$sel}[$rate])"
                " / clamp_min(rate(staunch_cpu_periods_total{$sel}[$rate]), 0.001)")),
               ("time, {{instance}}", "rate(staunch_cpu_throttled_seconds_total{$sel}[$rate])")],
              "Share of the periods of a container's CPU limit in which the kernel stopped the container, and the"
              " time for which it was stopped, summed over the cores. Hashing leaves STAUNCH_CPU_RESERVE of the limit"
              " unused, so both should stay near 0 %. Without a limit both are 0. Runbook: StaunchCpuThrottled.",
              lines=[(0.05, YELLOW), (0.25, RED)], top=0.3, w=6),
        graph("How much memory is used?", "bytes", [("{{instance}}", "process_resident_memory_bytes{$sel}")],
              "Resident memory, without that of an embedded PostgreSQL. Every queue and table is bounded, so it"
              " should level off. If it climbs for days, report a leak.", w=6),
        graph("How near are file descriptors to their limit?", "percentunit",
              [("{{instance}}", "process_open_fds{$sel} / process_max_fds{$sel}")],
              "Each connection is a file descriptor. Raise LimitNOFILE (systemd) or ulimit -n above"
              " STAUNCH_CONNECTIONS_MAX. Runbook: StaunchFileDescriptorsNearLimit.",
              lines=WATCH_ALERT, top=1, w=6),
        graph("Are log lines lost?", "short",
              [("log", "sum(increase(staunch_log_lines_dropped_total{$sel}[$rate]))"),
               ("audit log", "sum(increase(staunch_audit_events_dropped_total{$sel}[$rate]))")],
              "Log lines dropped because the program that reads the log is slower than staunch. Runbook:"
              " StaunchLogLinesDropped. Audit log: the database was unavailable for so long that the queue was full."
              " Runbook: StaunchAuditLinesDropped.", bars=True, w=6, decimals=0),
        graph("Do traces reach the collector?", "short",
              [("{{result}}", "sum by (result) (increase(staunch_trace_exports_total{$sel}[$rate]))")],
              "Batches of spans sent to STAUNCH_OTLP_ENDPOINT, if it is set. error: the collector is unavailable or"
              " refuses them; nothing else is affected.", bars=True, w=6),
        stat("Running for", "s", "time() - process_start_time_seconds{$sel}",
             "Time since each instance started.", base=BLUE, w=6, h=8, legend="{{instance}}", last=True,
             graph="none"),
        stat("Start to ready", "s", "staunch_startup_seconds{$sel}",
             "Time from the start of the process to readiness, at the last start: database, migrations, keys, and"
             " the calibration of the hash engine. If it exceeds a minute, look at the first lines of the log.",
             marks=[(10, YELLOW), (60, RED)], w=6, h=8, legend="{{instance}}", last=True, graph="none"),
        stat("Versions", "short", "count by (version) (staunch_build_info{$sel})",
             "Instances by version. More than one version outside of a release means that a node was not upgraded.",
             base=BLUE, w=6, h=8, legend="{{version}}", last=True, graph="none", decimals=0),
    ]),
    ("Shared counters", [
        graph("Is the Redis in use?", "short", [("{{instance}}", "1 - staunch_redis_away{$sel}")],
              "1 while a node counts limits and lockouts in Redis, or has none configured. At 0 its Redis is away or"
              " slow: the node counts on its own, so n nodes allow up to n times as much. Runbook:"
              " StaunchRedisAway.", w=6, top=1, decimals=0),
        graph("How do calls of Redis end?", "reqps", by("staunch_redis_calls_total", "result"),
              "Calls per second by outcome. timeout: no answer within STAUNCH_REDIS_DEADLINE; error: refused by the"
              " server, or a broken connection; unavailable: not sent, because earlier calls failed. In all but"
              " success the node's own counters decided.", stack=True, w=6),
        graph("How long do calls of Redis take?", "s",
              [("p50", else_zero(quantile(0.5, "staunch_redis_call_seconds"))),
               ("p95", else_zero(quantile(0.95, "staunch_redis_call_seconds"))),
               ("p99", else_zero(quantile(0.99, "staunch_redis_call_seconds")))],
              "Time of a call, which a login waits for. At STAUNCH_REDIS_DEADLINE (5 ms) it is given up, and after"
              " five in a row no call is made until the Redis answers a probe in time.",
              lines=[(0.0025, YELLOW), (0.005, RED)], top=0.005, w=6),
        graph("Which calls does Redis get?", "reqps",
              [("{{call}}", else_none(rate("staunch_redis_call_seconds_count", "call"), "call"))],
              "Calls per second by kind. login: each login; limits: a registration or refresh; failure: a wrong"
              " password; success: a login from a new address, or after failures; restore: known addresses were"
              " read from the sessions.", stack=True, w=6),
    ]),
]
