"""Runs the examples of docs/integrating.md, in four languages, on tokens of a running server."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

PAGE = Path("docs/integrating.md")
ISSUER = "https://login.example.com"
# How each language names the algorithm of the page.
ALGORITHM = {"python": '"EdDSA"', "js": "'EdDSA'", "go": '"EdDSA"', "java": "AlgorithmIdentifiers.EDDSA"}
# Each of these calls the example with a token, which is its last argument, and again with the token altered.
# The first argument is the subject of the token.
NODE = """
const [subject, token] = process.argv.slice(2)
const found = await accountOf(token)
if (found !== subject) throw new Error(`the example returns ${found}`)
await accountOf(`${token}x`).then(() => { throw new Error('the example accepts an altered token') }, () => {})
"""
GO_MODULE = """module example.com/check

go 1.24

require (
	github.com/MicahParks/keyfunc/v3 v3.9.2
	github.com/golang-jwt/jwt/v5 v5.3.1
)
"""
GO = """package main

import (
	"context"
	"log"
	"os"

	"example.com/check/login"
)

func main() {
	verifier, err := login.NewVerifier(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	subject, token := os.Args[1], os.Args[2]
	if found, err := verifier.AccountOf(token); err != nil || found != subject {
		log.Fatalf("the example returns %q, %v", found, err)
	}
	if _, err := verifier.AccountOf(token + "x"); err == nil {
		log.Fatal("the example accepts an altered token")
	}
}
"""
JAVA_PROJECT = """<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>com.example</groupId><artifactId>check</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.bitbucket.b_c</groupId><artifactId>jose4j</artifactId><version>0.9.6</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-nop</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""
COPY_LIBRARIES = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
JAVA = """import org.jose4j.jwt.consumer.InvalidJwtException;

class Check {
    public static void main(String[] arguments) throws Exception {
        AccessTokens example = new AccessTokens();
        String found = example.accountOf(arguments[1]);
        if (!found.equals(arguments[0])) {
            throw new IllegalStateException("the example returns " + found);
        }
        try {
            example.accountOf(arguments[1] + "x");
        } catch (InvalidJwtException expected) {
            return;
        }
        throw new IllegalStateException("the example accepts an altered token");
    }
}
"""
# The first run fetches the libraries.
LIMIT_S = 300


def example(language: str, issuer: str, algorithm: str) -> str:
    """Returns the page's only example in that language, for this server."""
    [code] = [block.split("```")[0] for block in PAGE.read_text(encoding="utf-8").split(f"```{language}\n")[1:]]
    quote = "'" if language == "js" else '"'
    for old, new in ((ISSUER, issuer), (ALGORITHM[language], f"{quote}{algorithm}{quote}")):
        if old not in code:
            raise ValueError(f"{PAGE}: the {language} example does not contain {old}")
        code = code.replace(old, new)
    return code


def run(folder: Path, *command: str | Path) -> None:
    subprocess.run(command, check=True, cwd=folder, timeout=LIMIT_S)


def has(*programs: str) -> bool:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        print(f"skipped an example: there is no {' or '.join(missing)}")
    return not missing


def check_python(code: str, token: str, subject: str) -> None:
    scope: dict[str, Any] = {}
    exec(code, scope)
    if scope["account_of"](token) != subject:
        raise ValueError(f"{PAGE}: the Python example returns another account")
    try:
        scope["account_of"](f"{token}x")
    except scope["jwt"].InvalidTokenError:
        pass
    else:
        raise ValueError(f"{PAGE}: the Python example accepts an altered token")


def check_go(folder: Path, code: str, token: str, subject: str) -> None:
    (folder / "login").mkdir(parents=True, exist_ok=True)
    for name, text in (("go.mod", GO_MODULE), ("main.go", GO), ("login/login.go", code)):
        (folder / name).write_text(text, encoding="utf-8")
    run(folder, "go", "mod", "tidy")
    run(folder, "go", "vet", "./...")
    run(folder, "go", "run", ".", subject, token)


def check_java(folder: Path, code: str, token: str, subject: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("pom.xml", JAVA_PROJECT), ("Check.java", JAVA), ("AccessTokens.java", code)):
        (folder / name).write_text(text, encoding="utf-8")
    if not list(folder.glob("lib/jose4j-*.jar")):
        run(folder, "mvn", "--quiet", "--batch-mode", COPY_LIBRARIES, "-DoutputDirectory=lib")
    run(folder, "javac", "-Xlint:all", "-Werror", "-cp", "lib/*", "Check.java", "AccessTokens.java")
    run(folder, "java", "-cp", ".:lib/*", "Check", subject, token)


def check_examples(issuer: str, algorithm: str, token: str, subject: str, node_folder: Path) -> None:
    """Fails unless each example returns the subject of the token and rejects an altered token."""
    code = {language: example(language, issuer, algorithm) for language in ALGORITHM}
    check_python(code["python"], token, subject)
    script = node_folder / "example.mjs"
    script.write_text(code["js"] + NODE, encoding="utf-8")
    run(node_folder, "node", script, subject, token)
    if has("go"):
        check_go(node_folder / "go", code["go"], token, subject)
    if has("javac", "mvn"):
        check_java(node_folder / "java", code["java"], token, subject)
