-- Sessions: one row each, from login to logout, however often it is refreshed. No token is stored:
-- a refresh token is this row's id and generation under a MAC.
CREATE TABLE refresh_tokens (
    -- Random (UUID version 4). `sid` of the session's access tokens.
    id             uuid PRIMARY KEY,
    user_id        bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- How often it was refreshed. Only the token of this generation continues the session.
    generation     bigint NOT NULL DEFAULT 0,
    -- When the generation last moved: the grace of a repeated request counts from here.
    rotated_at     timestamptz NOT NULL DEFAULT now(),
    created_at     timestamptz NOT NULL DEFAULT now(),
    last_used_at   timestamptz NOT NULL DEFAULT now(),
    -- Moves forward with each refresh.
    expires_at     timestamptz NOT NULL,
    revoked        boolean NOT NULL DEFAULT false,
    -- logout, reuse: for people who look at the table until the clean-up takes the row.
    revoked_reason text,
    -- Where the session was opened from, for its owner's list of sessions.
    ip             inet,
    -- At most 256 characters of the client's User-Agent.
    user_agent     text CHECK (length(user_agent) <= 256)
)
-- A refresh rewrites its row: leave room beside it on its page.
WITH (fillfactor = 80);

-- An account's live sessions.
CREATE INDEX refresh_tokens_user_id_revoked_idx ON refresh_tokens (user_id, revoked);
-- What the clean-up looks for: sessions past their time, and those that were ended.
CREATE INDEX refresh_tokens_expires_at_idx ON refresh_tokens (expires_at) WHERE NOT revoked;
CREATE INDEX refresh_tokens_revoked_idx ON refresh_tokens (id) WHERE revoked;
