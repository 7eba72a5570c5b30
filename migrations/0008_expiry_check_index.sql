-- Runs without a transaction, so that logins and refreshes continue meanwhile.
CREATE INDEX CONCURRENTLY IF NOT EXISTS refresh_tokens_expiry_check_at_idx
    ON refresh_tokens (expiry_check_at) WHERE NOT revoked;
