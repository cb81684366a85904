#!/usr/bin/env python3
"""Set up JaxRes in .venv and run it: `python3 dev.py quickstart`, `test`, `lint` or `setup`.

`test` leaves out what takes long; `test --slow` runs all.

Needs Python 3.11 or later and nothing else; the system's own packages are not touched.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
COMMANDS = {
    "quickstart": [["jaxres", "train", "configs/quickstart.yaml"]],
    "test": [["pytest", "-n", str(os.cpu_count() or 1)]],
    "lint": [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["pyright", "--pythonpath", BIN / "python"],
    ],
    "setup": [],
}
SLOW = ["-m", "slow or not slow"]  # in the place of pyproject.toml's `not slow`


def set_up() -> None:
    """Make .venv and install JaxRes with its test tools, unless that is already done."""
    sources = (ROOT / "pyproject.toml", ROOT / "constraints.txt")
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    stamp = VENV / "jaxres-setup"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    has_pip = (BIN / "python").exists() and not subprocess.call(
        [BIN / "python", "-c", "import pip"], stderr=subprocess.DEVNULL
    )  # not if setting up was interrupted
    if not has_pip and subprocess.call([sys.executable, "-m", "venv", VENV]):
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit("dev.py: this Python cannot make environments; on Debian install python3-venv")
    pip = [BIN / "python", "-m", "pip", "--disable-pip-version-check"]
    # Without bytecode: that saves a third of the time. Python compiles what is imported.
    install = ["install", "--quiet", "--no-compile", "-c", "constraints.txt", "-e", ".[test]"]
    print("setting up .venv (a minute or two)", file=sys.stderr, flush=True)
    subprocess.check_call([*pip, *install], cwd=ROOT)
    stamp.write_text(wanted)


def main() -> int:
    """Run the command named on the command line; further words go to its last program."""
    if sys.version_info < (3, 11):
        sys.exit(f"dev.py: needs Python 3.11 or later, this is {sys.version.split()[0]}")
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python3 dev.py {'|'.join(COMMANDS)} [ARGUMENT ...]")
    # Packages are installed without bytecode; each process would compile its imports anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    set_up()
    programs, given = COMMANDS[sys.argv[1]], sys.argv[2:]
    if sys.argv[1] == "test" and "--slow" in given:
        given = [*SLOW, *(word for word in given if word != "--slow")]
    for number, (program, *words) in enumerate(programs, 1):
        more = given if number == len(programs) else []
        if status := subprocess.call([BIN / program, *words, *more], cwd=ROOT):
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
