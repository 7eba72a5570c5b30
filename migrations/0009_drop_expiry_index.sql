-- Runs without a transaction, and a day after 0008: until then servers of the version before 0007 may
-- still be running, and their clean-up reads this index. A refresh changes expires_at.
DROP INDEX CONCURRENTLY IF EXISTS refresh_tokens_expires_at_idx;
