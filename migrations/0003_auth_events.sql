-- The audit log: what happened to accounts and sessions, kept for STAUNCH_AUDIT_KEEP.
CREATE TABLE auth_events (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    -- What was tried: login, register, refresh, logout, logout_all, session_end, password_change,
    -- account_disable, account_enable, account_delete.
    event      text NOT NULL,
    -- success, rejected, reuse, limited.
    outcome    text NOT NULL,
    -- The account; null where the name is nobody's. No reference: the log outlives its account.
    user_id    bigint,
    -- Null for what was done at the machine itself.
    ip         inet,
    -- The x-request-id of the request, by which its log line is found.
    request_id text CHECK (length(request_id) <= 128)
);

-- One account's history, newest first.
CREATE INDEX auth_events_user_id_at_idx ON auth_events (user_id, at DESC);
-- What the clean-up removes: rows come in the order of time, so a small index does.
CREATE INDEX auth_events_at_idx ON auth_events USING brin (at);
