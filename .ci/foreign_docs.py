"""Runs the Python and Node examples of docs/integrating.md on tokens of a running server."""

import subprocess
from pathlib import Path
from typing import Any

PAGE = Path("docs/integrating.md")
ISSUER = "https://login.example.com"
# The subject of the token is the first argument that Node gets, the token the second.
CALL = """
const [subject, token] = process.argv.slice(2)
const found = await accountOf(token)
if (found !== subject) throw new Error(`the example returns ${found}`)
await accountOf(`${token}x`).then(() => { throw new Error('the example accepts an altered token') }, () => {})
"""


def example(language: str, issuer: str, algorithm: str) -> str:
    """Returns the page's only example in that language, for this server."""
    [code] = [block.split("```")[0] for block in PAGE.read_text(encoding="utf-8").split(f"```{language}\n")[1:]]
    for placeholder in (ISSUER, "EdDSA"):
        if placeholder not in code:
            raise ValueError(f"{PAGE}: the {language} example does not contain {placeholder}")
    return code.replace(ISSUER, issuer).replace("EdDSA", algorithm)


def check_examples(issuer: str, algorithm: str, token: str, subject: str, node_folder: Path) -> None:
    """Fails unless both examples return the subject of the token and reject an altered token."""
    scope: dict[str, Any] = {}
    exec(example("python", issuer, algorithm), scope)
    if scope["account_of"](token) != subject:
        raise ValueError(f"{PAGE}: the Python example returns another account")
    try:
        scope["account_of"](f"{token}x")
    except scope["jwt"].InvalidTokenError:
        pass
    else:
        raise ValueError(f"{PAGE}: the Python example accepts an altered token")
    script = node_folder / "example.mjs"
    script.write_text(example("js", issuer, algorithm) + CALL, encoding="utf-8")
    subprocess.run(["node", script, subject, token], check=True, timeout=60)
