"""Starts the server and has Schemathesis call every operation of its document."""

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path

from common.children import Failed, catch_signals, stop_all
from common.staunch import LIMITS_OFF, Staunch, folder_for

ACCOUNT = {"email": "ada@example.com", "username": "ada", "password": "TestPass123!"}
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
DOCUMENT = Path(__file__).resolve().parent.parent / "src/http/openapi.json"
EXAMPLES = 150
LIMIT_S = 300


def register(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/api/v1/auth/register", json.dumps(ACCOUNT), headers)
    status = connection.getresponse().status
    connection.close()
    if status != 201:
        raise Failed(f"the account was not made: {status}")


def call_everything(staunch: Staunch, folder: Path) -> int:
    client_id, client_secret = staunch.add_client("schemathesis")
    register(staunch.port)
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "openapi_hooks",
        "STAUNCH_ACCOUNT": f"{ACCOUNT['username']}:{ACCOUNT['password']}",
        "STAUNCH_CLIENT": f"{client_id}:{client_secret}",
    }
    # From the file, as the operation that serves it would be left out otherwise. Bounded by examples
    # and not by time, in one thread: the same seed sends the same everywhere.
    command = [Path(sys.prefix) / "bin" / "schemathesis", "run", DOCUMENT, "--url", staunch.url,
               "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing",
               "--max-examples", str(EXAMPLES), "--seed", "1", "--workers", "1",
               "--generation-database", "none", "--continue-on-failure", "--warnings", "off",
               "--request-timeout", "30", "--no-color"]
    # Its working folder, so that no configuration of somebody else is read.
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parent)
    return subprocess.run(command, cwd=folder, env=environment, timeout=LIMIT_S).returncode


def main(program: str) -> int:
    catch_signals()
    with folder_for("openapi") as folder:
        settings = LIMITS_OFF | {
            "STAUNCH_BCRYPT_COST": "4",
            "STAUNCH_HASH_LANES": "2",
            "STAUNCH_LOCKOUT": "off",
        }
        staunch = Staunch(Path(program), folder, settings)
        try:
            staunch.start()
            code = call_everything(staunch, folder)
            for line in staunch.errors():
                print(line)
                code = code or 1
            return code or staunch.stop()
        except Failed as failed:
            print(f"openapi: {failed}", file=sys.stderr)
            return 1
        finally:
            stop_all()


sys.exit(main(*sys.argv[1:]))
