"""The programs of a cluster, which come from Debian packages."""

import shutil
from pathlib import Path

from harness.children import Failed
from harness.postgres import programs as postgres_programs

# Debian has daemons in a folder that is not in every user's PATH.
DAEMONS = "/usr/sbin:/sbin"
Packages = dict[tuple[str, ...], str]
# Each program with the Debian package that has it. One of the programs of a line is enough.
PACKAGES: Packages = {("valkey-server", "redis-server"): "redis-server", ("haproxy",): "haproxy"}
PATRONI: Packages = {("patroni",): "patroni", ("etcd",): "etcd-server"}
FAKETIME = "faketime/libfaketime.so.1"


def found(*names: str) -> str | None:
    """The path of the first of these programs that is installed."""
    paths = (shutil.which(name) or shutil.which(name, path=DAEMONS) for name in names)
    return next((path for path in paths if path), None)


def check(more: Packages | None = None) -> None:
    """Names everything that is missing, with the command that installs it; `more` are other programs."""
    missing = [package for names, package in (PACKAGES | (more or {})).items() if found(*names) is None]
    try:
        if not all((postgres_programs() / name).exists() for name in ("pg_basebackup", "pg_ctl")):
            missing.append("postgresql")
    except Failed:
        missing.append("postgresql")
    if missing:
        raise Failed(f"missing: {', '.join(missing)}\n  apt-get install {' '.join(missing)}")


def faketime() -> Path:
    """The library that gives a process another time of day."""
    for folder in ("/usr/lib", "/usr/lib64", "/usr/local/lib"):
        if paths := [*Path(folder).glob(FAKETIME), *Path(folder).glob(f"*/{FAKETIME}")]:
            return paths[0]
    raise Failed("missing: libfaketime\n  apt-get install libfaketime")
