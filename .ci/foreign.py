"""Starts the server, once for each algorithm, and has foreign libraries use it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile

# The server is on this machine; Authlib asks for TLS otherwise.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

import jwt
import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet

PASSWORD = "TestPass123!"
ALGORITHMS = ("EdDSA", "ES256", "RS256")


def check(holds, what):
    if not holds:
        sys.exit(f"foreign: {what}")


def free_port():
    # The issuer names the port, so it has to be known before the start.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, program, algorithm):
        self.folder = tempfile.mkdtemp(prefix="staunch-foreign-")
        os.chmod(self.folder, 0o755)
        self.issuer = f"http://127.0.0.1:{free_port()}"
        kept = {n: v for n, v in os.environ.items() if not n.startswith("STAUNCH_") and n != "DATABASE_URL"}
        self.environment = kept | {
            "STAUNCH_LISTEN": self.issuer.removeprefix("http://"),
            "STAUNCH_JWT_ISSUER": self.issuer,
            "STAUNCH_JWT_ALG": algorithm,
            "STAUNCH_DATA_DIR": os.path.join(self.folder, "data"),
            "STAUNCH_BCRYPT_COST": "4",
            "STAUNCH_HASH_LANES": "2",
            "STAUNCH_LOG": "error",
            "STAUNCH_LIMIT_LOGIN": "off",
            "STAUNCH_LIMIT_CLIENTS": "off",
            "STAUNCH_LIMIT_GLOBAL": "off",
        }
        self.program = program

    def run(self, *arguments):
        done = subprocess.run([self.program, *arguments], cwd=self.folder, env=self.environment,
                              capture_output=True, text=True, timeout=120)
        check(done.returncode == 0, f"{arguments}: {done.stderr}")
        return done.stdout

    def __enter__(self):
        self.process = subprocess.Popen([self.program], cwd=self.folder, env=self.environment,
                                        stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.startswith("try"):
                return self
        sys.exit("foreign: the server did not start")

    def __exit__(self, *_):
        self.process.terminate()
        code = self.process.wait(timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)
        check(code == 0, f"the server ended with {code}")


def pyjwt(jwks_uri, issuer, algorithm, token):
    key = jwt.PyJWKClient(jwks_uri).get_signing_key_from_jwt(token)
    claims = jwt.decode(token, key, algorithms=[algorithm], audience="staunch", issuer=issuer,
                        options={"require": ["exp", "iat", "iss", "aud", "sub", "jti"]})
    check(claims["sub"] == "1", claims)
    for wrong in ({"audience": "other"}, {"issuer": "other"}):
        try:
            jwt.decode(token, key, algorithms=[algorithm], **{"audience": "staunch", "issuer": issuer} | wrong)
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
            continue
        check(False, f"PyJWT takes {wrong}")


def authlib(server, algorithm, metadata, client_id, client_secret):
    token_endpoint = metadata["token_endpoint"]
    # First-party: the login needs no client.
    session = OAuth2Session("first-party", token_endpoint=token_endpoint, token_endpoint_auth_method="none")
    token = session.fetch_token(token_endpoint, grant_type="password", username="ada", password=PASSWORD)
    me = session.get(f"{server.issuer}/api/v1/auth/me")
    check(me.status_code == 200 and me.json()["username"] == "ada", me.text)

    keys = KeySet.import_key_set(requests.get(metadata["jwks_uri"], timeout=10).json())
    read = joserfc_jwt.decode(token["access_token"], keys, algorithms=[algorithm])
    expected = {"iss": server.issuer, "aud": "staunch"}
    joserfc_jwt.JWTClaimsRegistry(
        **{name: {"essential": True, "value": value} for name, value in expected.items()}
    ).validate(read.claims)

    renewed = session.refresh_token(token_endpoint)
    check(renewed["refresh_token"] != token["refresh_token"], "the refresh token was replaced")

    for method in metadata["introspection_endpoint_auth_methods_supported"]:
        service = OAuth2Session(client_id, client_secret, token_endpoint_auth_method=method,
                                revocation_endpoint_auth_method=method)
        introspect = metadata["introspection_endpoint"]
        for kind in ("access_token", "refresh_token"):
            said = service.introspect_token(introspect, renewed[kind], token_type_hint=kind)
            check(said.status_code == 200 and said.json()["active"], f"{method}: {said.text}")
            check(said.json()["username"] == "ada", said.text)
        said = service.introspect_token(introspect, token["refresh_token"])
        check(said.json() == {"active": False}, said.text)
        revoked = service.revoke_token(metadata["revocation_endpoint"], renewed["refresh_token"],
                                       token_type_hint="refresh_token")
        check(revoked.status_code == 200, revoked.text)
        said = service.introspect_token(introspect, renewed["access_token"])
        check(said.json() == {"active": False}, f"revoked: {said.text}")
        renewed = session.fetch_token(token_endpoint, grant_type="password", username="ada",
                                      password=PASSWORD)
    stranger = OAuth2Session(client_id, "wrong").introspect_token(introspect, renewed["access_token"])
    check(stranger.status_code == 401 and stranger.json()["error"] == "invalid_client", stranger.text)
    return renewed["access_token"]


def main(program, verify_with_node):
    for algorithm in ALGORITHMS:
        with Server(program, algorithm) as server:
            made = dict(line.split() for line in server.run("client", "add", "foreign").splitlines())
            account = {"email": "ada@example.com", "username": "ada", "password": PASSWORD}
            registered = requests.post(f"{server.issuer}/api/v1/auth/register", json=account, timeout=30)
            check(registered.status_code == 201, registered.text)

            found = requests.get(f"{server.issuer}/.well-known/oauth-authorization-server", timeout=10).json()
            metadata = AuthorizationServerMetadata(found)
            metadata.validate()
            check(metadata["issuer"] == server.issuer, metadata)
            access = authlib(server, algorithm, metadata, made["client_id"], made["client_secret"])
            pyjwt(metadata["jwks_uri"], server.issuer, algorithm, access)
            subprocess.run(["node", verify_with_node, metadata["jwks_uri"], server.issuer, algorithm, access],
                           check=True, timeout=60)

            # Rotated under way: what was signed before and after is good for all of them.
            rotated = server.run("keys", "rotate", "--now").split()[2]
            server.process.send_signal(1)
            for _ in range(400):
                login = requests.post(metadata["token_endpoint"], timeout=30,
                                      data={"username": "ada", "password": PASSWORD})
                check(login.status_code == 200, login.text)
                after = login.json()["access_token"]
                if jwt.get_unverified_header(after)["kid"] == rotated:
                    break
            else:
                sys.exit("foreign: the new key never signed")
            for token in (access, after):
                pyjwt(metadata["jwks_uri"], server.issuer, algorithm, token)
            print(f"{algorithm}: PyJWT, jose and Authlib agree")


main(*sys.argv[1:])
