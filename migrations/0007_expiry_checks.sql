-- When the clean-up looks at a live session next: at its expiry as of then. A refresh moves expires_at,
-- but not this column. The clean-up moves it for a session that was refreshed in the meantime. So no
-- index contains a column that a refresh changes, and its new row version can stay on its page without
-- new index entries (a heap-only tuple update).
-- The default is for rows of servers that do not know the column; the clean-up sorts them.
ALTER TABLE refresh_tokens ADD COLUMN expiry_check_at timestamptz NOT NULL DEFAULT now();
