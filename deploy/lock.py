"""Write requirements.lock: each version in constraints.txt, with the sha256 of the file that pip takes.

For Python 3.11 on Linux x86_64; run it there (``make lock``) when constraints.txt or pyproject.toml changes.
torch is left out: which build it is, and from where, depends on the device.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "azure,bench,dev,gcs,publish,roman,s3"
LEFT_OUT = frozenset({"torch"})
_HEADER = """\
# Written by deploy/lock.py; Python 3.11, Linux x86_64. torch is installed before, for the device at hand:
#   pip install -c constraints.txt torch
#   pip install --require-hashes -r requirements.lock
#   pip install --no-deps .
"""


def normalised(name: str) -> str:
    """Return a package's name as indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: Path) -> dict[str, str]:
    """Return the version of each package that a file of constraints or requirements pins."""
    found = re.findall(r"^([\w.-]+)==([^\s\\]+)", path.read_text(), re.MULTILINE)
    return {normalised(name): version for name, version in found}


def resolve() -> list[dict[str, Any]]:
    """Ask pip what it would install of everything."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    command += ["--quiet", "--report", "-", "--constraint", str(ROOT / "constraints.txt")]
    done = subprocess.run(  # noqa: S603  # pip, on this repository
        [*command, f"{ROOT}[{EXTRAS}]"], check=True, stdout=subprocess.PIPE, text=True
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)["install"]
    return found


def main() -> None:
    """Write the lock, or say what has no pin."""
    wanted = pins(ROOT / "constraints.txt")
    lines = {}
    for item in resolve():
        name = normalised(item["metadata"]["name"])
        if name in wanted and name not in LEFT_OUT:
            digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
            lines[name] = f"{name}=={item['metadata']['version']} --hash=sha256:{digest}\n"
    missing = wanted.keys() - lines.keys() - LEFT_OUT
    if missing:
        sys.exit(f"constraints.txt pins what nothing needs: {', '.join(sorted(missing))}")
    (ROOT / "requirements.lock").write_text(
        _HEADER + "".join(lines[name] for name in sorted(lines))
    )


if __name__ == "__main__":
    main()
