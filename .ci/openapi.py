"""Starts the server and runs Schemathesis on every operation of its OpenAPI document."""

import os
import subprocess
import sys
from pathlib import Path

import requests

from harness import ROOT
from harness.children import Failed, catch_signals, stop_all
from harness.environment import program as installed
from harness.staunch import LIMITS_OFF, Staunch, folder_for

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
DOCUMENT = ROOT / "src/http/openapi.json"
EXAMPLES = 150
LIMIT_S = 300


def call_everything(staunch: Staunch, folder: Path) -> int:
    client_id, client_secret = staunch.add_client("schemathesis")
    registered = requests.post(f"{staunch.url}/api/v1/auth/register", json=ACCOUNT, timeout=30)
    if registered.status_code != 201:
        raise Failed(f"the account was not registered: {registered.status_code}")
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "openapi_hooks",
        "STAUNCH_ACCOUNT": f"{ACCOUNT['username']}:{ACCOUNT['password']}",
        "STAUNCH_CLIENT": f"{client_id}:{client_secret}",
    }
    # From the file, because Schemathesis leaves out the operation that serves the document. Bounded by
    # examples and not by time, in one thread, so that a seed always sends the same requests.
    command = [
        *(installed("schemathesis"), "run", str(DOCUMENT), f"--url={staunch.url}", f"--checks={','.join(CHECKS)}"),
        *("--phases=examples,coverage,fuzzing", f"--max-examples={EXAMPLES}", "--seed=1", "--workers=1"),
        *("--generation-database=none", "--continue-on-failure", "--warnings=off"),
        *("--request-timeout=30", "--no-color"),
    ]
    # Schemathesis runs in its own folder, so that it reads no other configuration.
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parent)
    return subprocess.run(command, cwd=folder, env=environment, timeout=LIMIT_S).returncode


def main(program: str) -> int:
    catch_signals()
    with folder_for("openapi") as folder:
        settings = LIMITS_OFF | {"STAUNCH_BCRYPT_COST": "4", "STAUNCH_HASH_LANES": "2", "STAUNCH_LOCKOUT": "off"}
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
