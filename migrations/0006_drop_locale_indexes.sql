-- Runs without a transaction, like 0005, and a day after it: until then servers of the version
-- before 0005 may still be running, and they look names up by these indexes. A new database has no
-- such servers and drops them at once.
DROP INDEX CONCURRENTLY IF EXISTS users_email_key;
DROP INDEX CONCURRENTLY IF EXISTS users_username_key;
DROP INDEX CONCURRENTLY IF EXISTS clients_name_key;
