-- Runs without a transaction, statement by statement: an index that is built or dropped CONCURRENTLY
-- does not lock its table. Every statement can be repeated after an interruption. A semicolon ends a
-- line only where it ends a statement.
--
-- Names are compared as lower(x COLLATE "C"), which folds A to Z and nothing else. The result and
-- the order of the index depend on no locale and on no version of the operating system's or ICU's
-- collations. 0006 drops the indexes that these replace.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS users_email_fold_key
    ON users (lower(email COLLATE "C"));
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS users_username_fold_key
    ON users (lower(username COLLATE "C"));
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS clients_name_exact_key
    ON clients (name COLLATE "C");
-- No statement reads it.
DROP INDEX CONCURRENTLY IF EXISTS users_inactive_idx;
