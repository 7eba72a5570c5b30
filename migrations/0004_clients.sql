-- OAuth clients: services that may introspect and revoke tokens (RFC 7662, RFC 7009).
CREATE TABLE clients (
    -- Random (UUID version 4): the client_id.
    id            uuid PRIMARY KEY,
    -- What people call it. Unique, so that a list says which is which.
    name          text NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    -- SHA-256 of the client_secret. The secret has 256 random bits, so there is nothing to guess and
    -- no need of a slow hash.
    secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
    created_at    timestamptz NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX clients_name_key ON clients (name);
