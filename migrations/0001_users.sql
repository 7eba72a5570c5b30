-- Accounts: who can log in.
CREATE TABLE users (
    -- The account's number: `sub` of its tokens. Never reused.
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- As typed at registration; unique without regard to case (index below). At most 254 octets.
    email         text NOT NULL CHECK (octet_length(email) <= 254),
    -- As typed at registration; unique without regard to case. 3 to 64 of A-Z a-z 0-9 . _ -
    username      text NOT NULL CHECK (username ~ '^[A-Za-z0-9._-]{3,64}$'),
    -- Modular-crypt bcrypt: $2b$<cost>$<salt and digest>. Never leaves the server.
    password_hash text NOT NULL,
    -- False: every login, refresh and access token of the account is refused.
    is_active     boolean NOT NULL DEFAULT true,
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- Moves when the password or is_active changes. A login that read the account before that
    -- moment is refused when it comes to store its session.
    updated_at    timestamptz NOT NULL DEFAULT now()
);

-- Names are ASCII or compared as PostgreSQL's lower() folds them; both serve the login's look-up.
CREATE UNIQUE INDEX users_email_key ON users (lower(email));
CREATE UNIQUE INDEX users_username_key ON users (lower(username));
-- Few accounts are disabled: listing them reads this instead of the table.
CREATE INDEX users_inactive_idx ON users (id) WHERE NOT is_active;
