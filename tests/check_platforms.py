"""Asks pip whether all that the package requires comes as wheels, for each system and Python.

    python tests/check_platforms.py
    python tests/check_platforms.py --extra test --system windows --python 3.13

Prints a row for each: the versions that pip would take, or its error. Downloads, so it needs the
network, and some minutes. With --platform and --python-version, pip looks for the wheels of another
system, but still evaluates markers for its own, so it is told the other's here.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ["3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]
SHOWN = [
    *("tensorflow", "range-coder", "onnxruntime", "onnx"),
    *("numpy", "scipy", "pillow", "simplejpeg"),
]


def _linux(machine):
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(28, 16, -1)]
    return ("linux", "Linux", machine, [*platforms, f"manylinux2014_{machine}"])


# By name: sys_platform, platform_system and platform_machine in markers; tags of the wheels.
SYSTEMS = {
    "linux-x86-64": _linux("x86_64"),
    "linux-arm64": _linux("aarch64"),
    "macos-arm64": ("darwin", "Darwin", "arm64", ["macosx_14_0_arm64"]),
    "macos-x86-64": ("darwin", "Darwin", "x86_64", ["macosx_14_0_x86_64"]),
    "windows": ("win32", "Windows", "AMD64", ["win_amd64"]),
}


# pip with the markers of another system, which are the first argument.
PIP = """
import json, sys
from pip._vendor.packaging import markers
environment = json.loads(sys.argv.pop(1))
markers.default_environment = lambda: environment
from pip._internal.cli.main import main
sys.exit(main())
"""


def pip(environment, *arguments):
    command = [sys.executable, "-c", PIP, json.dumps(environment), "install", "--dry-run"]
    return subprocess.run(
        [*command, "--quiet", "--ignore-installed", "--report", "-", *arguments],
        capture_output=True,
        text=True,
    )


def requirements():
    """The package's own requirements, with markers."""
    finished = pip(default_environment(), "--no-deps", str(ROOT))
    (package,) = json.loads(finished.stdout)["install"]
    return [Requirement(text) for text in package["metadata"]["requires_dist"]]


def resolve(wanted, system, python, extras):
    """Returns dict of name to version, or pip's error as str."""
    sys_platform, platform_system, machine, platforms = SYSTEMS[system]
    environment = {
        **default_environment(),
        "sys_platform": sys_platform,
        "os_name": "nt" if sys_platform == "win32" else "posix",
        "platform_system": platform_system,
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.1",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    needed = [
        f"{requirement.name}{requirement.specifier}"
        for requirement in wanted
        if requirement.marker is None
        or any(requirement.marker.evaluate({**environment, "extra": e}) for e in ["", *extras])
    ]
    with tempfile.TemporaryDirectory() as folder:
        finished = pip(
            environment,
            *("--only-binary=:all:", "--target", folder),
            *("--implementation", "cp", "--python-version", python),
            *(f"--platform={platform}" for platform in platforms),
            *needed,
        )
    if finished.returncode:
        errors = [line for line in finished.stderr.splitlines() if line.startswith("ERROR")]
        return errors[-1] if errors else finished.stderr
    found = [package["metadata"] for package in json.loads(finished.stdout)["install"]]
    return {canonicalize_name(package["name"]): package["version"] for package in found}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extra", nargs="+", default=[], help="extras to ask for as well (none)")
    parser.add_argument("--system", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--python", nargs="+", default=PYTHONS)
    args = parser.parse_args()
    wanted, failed = requirements(), 0
    for system in args.system:
        for python in args.python:
            found = resolve(wanted, system, python, args.extra)
            if isinstance(found, str):
                failed += 1
                text = found
            else:
                text = ", ".join(f"{name} {found[name]}" for name in SHOWN if name in found)
            print(f"{system} {python}: {text}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
