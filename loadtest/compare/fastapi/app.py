"""A usual Python login server: FastAPI, bcrypt, psycopg2 and PyJWT, used as documented.

Endpoints that block (the database, bcrypt) are plain `def`, so FastAPI runs them in its thread
pool; bcrypt lets other threads run while it computes. Sessions are rows; a refresh token is stored
as its SHA-256.

Environment: DATABASE_URL, BCRYPT_COST, JWT_SECRET (the same for all workers).
"""

import hashlib
import os
import secrets
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import bcrypt
import jwt
import psycopg2
from fastapi import Depends, FastAPI, HTTPException, Response, status
from fastapi.security import OAuth2PasswordBearer, OAuth2PasswordRequestForm
from psycopg2.extensions import cursor
from psycopg2.pool import ThreadedConnectionPool
from pydantic import BaseModel, EmailStr, Field, field_validator

BCRYPT_COST = int(os.environ.get("BCRYPT_COST", "12"))
JWT_SECRET = os.environ["JWT_SECRET"]
ISSUER = "fastapi-server"
ACCESS_TTL = timedelta(minutes=30)
REFRESH_TTL = timedelta(days=7)
PASSWORD_BYTES_MAX = 72
# As many as FastAPI has threads for `def` endpoints, so that no thread lacks a connection. The minimum equals
# the maximum, because psycopg2's pool closes returned connections beyond its minimum.
CONNECTIONS = 40

SCHEMA = """
-- Every worker starts with this; one at a time.
select pg_advisory_xact_lock(1);
create table if not exists users(
  id bigint generated always as identity primary key,
  email text not null,
  username text not null,
  password_hash text not null,
  is_active bool not null default true,
  created_at timestamptz not null default now()
);
create unique index if not exists users_email on users(lower(email));
create unique index if not exists users_username on users(lower(username));
create table if not exists refresh_tokens(
  token_hash bytea primary key,
  user_id bigint not null references users(id),
  revoked bool not null default false,
  expires_at timestamptz not null,
  created_at timestamptz not null default now()
);
"""

pool: ThreadedConnectionPool
# The hash that an unknown account's password is checked against, so that it takes the same time.
DUMMY_HASH = bcrypt.hashpw(b"no such account", bcrypt.gensalt(BCRYPT_COST))


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    global pool
    pool = ThreadedConnectionPool(CONNECTIONS, CONNECTIONS, os.environ["DATABASE_URL"])
    with database() as db:
        db.execute(SCHEMA)
    yield
    pool.closeall()


app = FastAPI(lifespan=lifespan)
bearer = OAuth2PasswordBearer(tokenUrl="/api/v1/auth/token")


@contextmanager
def database() -> Iterator[cursor]:
    """A cursor for one statement, which is one round trip without BEGIN and COMMIT."""
    connection = pool.getconn()
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
    finally:
        pool.putconn(connection)


class Registration(BaseModel):
    email: EmailStr = Field(max_length=254)
    username: str = Field(min_length=3, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    password: str = Field(min_length=8)

    @field_validator("password")
    @classmethod
    def fits_bcrypt(cls, password: str) -> str:
        if len(password.encode()) > PASSWORD_BYTES_MAX:
            raise ValueError("longer than bcrypt takes")
        return password


class Account(BaseModel):
    id: int
    email: str
    username: str
    is_active: bool


class AccountWithAge(Account):
    created_at: datetime


class Presented(BaseModel):
    refresh_token: str


class Tokens(BaseModel):
    access_token: str
    refresh_token: str
    token_type: str = "bearer"
    expires_in: int = int(ACCESS_TTL.total_seconds())


def rejected(detail: str) -> HTTPException:
    return HTTPException(status.HTTP_401_UNAUTHORIZED, detail, headers={"WWW-Authenticate": "Bearer"})


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def tokens(user_id: int, refresh_token: str, response: Response) -> Tokens:
    now = datetime.now(UTC)
    claims = {
        "iss": ISSUER,
        "sub": str(user_id),
        "aud": ISSUER,
        "exp": now + ACCESS_TTL,
        "iat": now,
        "jti": str(uuid.uuid4()),
    }
    response.headers["Cache-Control"] = "no-store"
    access_token = jwt.encode(claims, JWT_SECRET, algorithm="HS256")
    return Tokens(access_token=access_token, refresh_token=refresh_token)


@app.get("/health/liveness")
async def liveness() -> dict[str, str]:
    return {"status": "alive"}


@app.post("/api/v1/auth/register", status_code=status.HTTP_201_CREATED)
def register(new: Registration) -> Account:
    password_hash = bcrypt.hashpw(new.password.encode(), bcrypt.gensalt(BCRYPT_COST)).decode()
    try:
        with database() as db:
            db.execute(
                "insert into users(email, username, password_hash) values (%s, %s, %s) returning id, is_active",
                (new.email, new.username, password_hash),
            )
            [(user_id, is_active)] = db.fetchall()
    except psycopg2.errors.UniqueViolation:
        raise HTTPException(status.HTTP_409_CONFLICT, "email or username taken") from None
    return Account(id=user_id, email=new.email, username=new.username, is_active=is_active)


@app.post("/api/v1/auth/token")
def token(form: Annotated[OAuth2PasswordRequestForm, Depends()], response: Response) -> Tokens:
    column = "email" if "@" in form.username else "username"
    with database() as db:
        db.execute(
            f"select id, password_hash from users where lower({column}) = lower(%s) and is_active", (form.username,)
        )
        row = db.fetchone()
    # No connection is held meanwhile.
    stored = row[1].encode() if row else DUMMY_HASH
    password = form.password.encode()
    right = len(password) <= PASSWORD_BYTES_MAX and bcrypt.checkpw(password, stored)
    if row is None or not right:
        raise rejected("wrong username or password")
    refresh_token = secrets.token_urlsafe(32)
    with database() as db:
        db.execute(
            "insert into refresh_tokens(token_hash, user_id, expires_at) values (%s, %s, now() + %s)",
            (digest(refresh_token), row[0], REFRESH_TTL),
        )
    return tokens(row[0], refresh_token, response)


@app.post("/api/v1/auth/refresh")
def refresh(presented: Presented, response: Response) -> Tokens:
    successor = secrets.token_urlsafe(32)
    with database() as db:
        db.execute(
            "update refresh_tokens set token_hash = %s, expires_at = now() + %s"
            " where token_hash = %s and not revoked and expires_at > now() returning user_id",
            (digest(successor), REFRESH_TTL, digest(presented.refresh_token)),
        )
        row = db.fetchone()
    if row is None:
        raise rejected("invalid refresh token")
    return tokens(row[0], successor, response)


def current_account(access_token: Annotated[str, Depends(bearer)]) -> AccountWithAge:
    try:
        claims = jwt.decode(access_token, JWT_SECRET, algorithms=["HS256"], audience=ISSUER, issuer=ISSUER)
    except jwt.InvalidTokenError:
        raise rejected("invalid access token") from None
    with database() as db:
        db.execute(
            "select id, email, username, is_active, created_at from users where id = %s and is_active",
            (int(claims["sub"]),),
        )
        row = db.fetchone()
    if row is None:
        raise rejected("no such account")
    names = ("id", "email", "username", "is_active", "created_at")
    return AccountWithAge(**dict(zip(names, row, strict=True)))


@app.get("/api/v1/auth/me")
async def me(account: Annotated[AccountWithAge, Depends(current_account)]) -> AccountWithAge:
    return account
