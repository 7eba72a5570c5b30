"""How Schemathesis says who it is: a session of its own for each call, as some of them end it, and a
client's credentials where clients ask."""

import base64
import os

import requests
import schemathesis

CLIENTS = ["/api/v1/auth/introspect", "/api/v1/auth/revoke"]
BEARER = ["/api/v1/auth/me", "/api/v1/auth/logout-all", "/api/v1/auth/sessions",
          "/api/v1/auth/sessions/{id}", "/api/v1/auth/password"]


@schemathesis.auth(refresh_interval=None).apply_to(path=BEARER)
class Account:
    def get(self, case, context):
        name, password = os.environ["STAUNCH_ACCOUNT"].split(":", 1)
        base = case.operation.base_url.rstrip("/")
        answer = requests.post(f"{base}/api/v1/auth/token", timeout=30,
                               data={"username": name, "password": password})
        answer.raise_for_status()
        return answer.json()["access_token"]

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.auth(refresh_interval=None).apply_to(path=CLIENTS)
class Client:
    def get(self, case, context):
        return base64.b64encode(os.environ["STAUNCH_CLIENT"].encode()).decode()

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Basic {data}"
