"""Starts the server once for each signing algorithm, and uses it with other libraries."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Authlib requires TLS otherwise; the server is on this machine.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

import jwt
import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from foreign_docs import check_examples
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet

from harness.children import Failed, run_main
from harness.postgres import free_port
from harness.staunch import LIMITS_OFF, Staunch, folder_for

PASSWORD = "TestPass123!"
ALGORITHMS = ("EdDSA", "ES256", "RS256")


def check(holds: bool, what: object) -> None:
    if not holds:
        raise Failed(what)


@contextmanager
def serving(program: Path, algorithm: str) -> Iterator[Staunch]:
    """A server that signs with that algorithm. The issuer contains the port, so it is chosen first."""
    port = free_port()
    settings = LIMITS_OFF | {
        "STAUNCH_JWT_ISSUER": f"http://127.0.0.1:{port}",
        "STAUNCH_JWT_ALG": algorithm,
        "STAUNCH_BCRYPT_COST": "4",
        "STAUNCH_HASH_LANES": "2",
    }
    with folder_for("foreign") as folder:
        server = Staunch(program, folder, settings, port)
        server.start()
        yield server
        code = server.stop()
        check(code == 0, f"the server ended with {code}")


def pyjwt(jwks_uri: str, issuer: str, algorithm: str, token: str) -> None:
    key = jwt.PyJWKClient(jwks_uri).get_signing_key_from_jwt(token)
    claims = jwt.decode(
        token,
        key,
        algorithms=[algorithm],
        audience="staunch",
        issuer=issuer,
        options={"require": ["exp", "iat", "iss", "aud", "sub", "jti"]},
    )
    check(claims["sub"] == "1", claims)
    for wrong in ({"audience": "other"}, {"issuer": "other"}):
        expected = {"audience": "staunch", "issuer": issuer} | wrong
        try:
            jwt.decode(token, key, algorithms=[algorithm], audience=expected["audience"], issuer=expected["issuer"])
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
            continue
        check(False, f"PyJWT accepts {wrong}")


def authlib(server: Staunch, algorithm: str, metadata: dict[str, Any], client_id: str, client_secret: str) -> str:
    token_endpoint = metadata["token_endpoint"]
    # First-party: the login needs no client.
    session = OAuth2Session("first-party", token_endpoint=token_endpoint, token_endpoint_auth_method="none")
    token = session.fetch_token(token_endpoint, grant_type="password", username="ada", password=PASSWORD)
    me = session.get(f"{server.url}/api/v1/auth/me")
    check(me.status_code == 200 and me.json()["username"] == "ada", me.text)

    keys = KeySet.import_key_set(requests.get(metadata["jwks_uri"], timeout=10).json())
    read = joserfc_jwt.decode(token["access_token"], keys, algorithms=[algorithm])
    joserfc_jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": server.url}, aud={"essential": True, "value": "staunch"}
    ).validate(read.claims)

    renewed = session.refresh_token(token_endpoint)
    check(renewed["refresh_token"] != token["refresh_token"], "the refresh token was replaced")

    for method in metadata["introspection_endpoint_auth_methods_supported"]:
        service = OAuth2Session(
            client_id, client_secret, token_endpoint_auth_method=method, revocation_endpoint_auth_method=method
        )
        introspect = metadata["introspection_endpoint"]
        for kind in ("access_token", "refresh_token"):
            said = service.introspect_token(introspect, renewed[kind], token_type_hint=kind)
            check(said.status_code == 200 and said.json()["active"], f"{method}: {said.text}")
            check(said.json()["username"] == "ada", said.text)
        said = service.introspect_token(introspect, token["refresh_token"])
        check(said.json() == {"active": False}, said.text)
        revoked = service.revoke_token(
            metadata["revocation_endpoint"], renewed["refresh_token"], token_type_hint="refresh_token"
        )
        check(revoked.status_code == 200, revoked.text)
        said = service.introspect_token(introspect, renewed["access_token"])
        check(said.json() == {"active": False}, f"revoked: {said.text}")
        renewed = session.fetch_token(token_endpoint, grant_type="password", username="ada", password=PASSWORD)
    stranger = OAuth2Session(client_id, "wrong").introspect_token(introspect, renewed["access_token"])
    check(stranger.status_code == 401 and stranger.json()["error"] == "invalid_client", stranger.text)
    return str(renewed["access_token"])


def main(program: str, verify_with_node: str) -> int:
    for algorithm in ALGORITHMS:
        with serving(Path(program), algorithm) as server:
            client_id, client_secret = server.add_client("foreign")
            account = {"email": "ada@example.com", "username": "ada", "password": PASSWORD}
            registered = requests.post(f"{server.url}/api/v1/auth/register", json=account, timeout=30)
            check(registered.status_code == 201, registered.text)

            found = requests.get(f"{server.url}/.well-known/oauth-authorization-server", timeout=10).json()
            metadata = AuthorizationServerMetadata(found)
            metadata.validate()
            check(metadata["issuer"] == server.url, metadata)
            access = authlib(server, algorithm, metadata, client_id, client_secret)
            pyjwt(metadata["jwks_uri"], server.url, algorithm, access)
            subprocess.run(
                ["node", verify_with_node, metadata["jwks_uri"], server.url, algorithm, access], check=True, timeout=60
            )

            check_examples(server.url, algorithm, access, "1", Path(verify_with_node).parent)

            # Rotate the key: tokens signed before and after must verify with all of them.
            rotated = server.command("keys", "rotate", "--now").split()[2]
            os.kill(server.pid, signal.SIGHUP)
            for _ in range(400):
                login = requests.post(
                    metadata["token_endpoint"], timeout=30, data={"username": "ada", "password": PASSWORD}
                )
                check(login.status_code == 200, login.text)
                after = login.json()["access_token"]
                if jwt.get_unverified_header(after)["kid"] == rotated:
                    break
            else:
                raise Failed("the new key never signed")
            for token in (access, after):
                pyjwt(metadata["jwks_uri"], server.url, algorithm, token)
            print(f"{algorithm}: PyJWT, jose and Authlib agree")
    return 0


run_main(lambda: main(*sys.argv[1:]))
