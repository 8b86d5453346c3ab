"""What the wheels of the code and of the models hold, and what they ask pip to bring along."""

import shutil
import subprocess
import sys
import zipfile
from email.parser import BytesParser
from importlib.metadata import version
from importlib.util import find_spec

import pytest
from conftest import ROOT
from packaging.markers import default_environment
from packaging.requirements import Requirement

pytest.importorskip("pip")
# Asked for its version only: pytest has imported the distutils that setuptools would replace.
if find_spec("setuptools") is None:
    pytest.skip("needs setuptools", allow_module_level=True)
if int(version("setuptools").partition(".")[0]) < 71:
    pytest.importorskip("wheel")  # which later versions contain

SOURCES = "gmm_attention models tests setup.py pyproject.toml MANIFEST.in README.md LICENSE"

# As markers have it: sys_platform, platform_system, platform_machine.
SYSTEMS = {
    "Linux x86-64": ("linux", "Linux", "x86_64"),
    "Linux arm64": ("linux", "Linux", "aarch64"),
    "macOS arm64": ("darwin", "Darwin", "arm64"),
    "macOS x86-64": ("darwin", "Darwin", "x86_64"),
    "Windows": ("win32", "Windows", "AMD64"),
}
PYTHONS = ["3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]


def _wheel(folder, output):
    """Builds a source release in a folder, of that release a wheel, and opens it."""
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, output], cwd=folder, check=True)
    (release,) = output.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", output, release], cwd=output, check=True)
    (wheel,) = output.glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Opened wheels of the code and of the models."""
    # Built in a copy: setuptools leaves files beside the sources, and packs what it finds there.
    clone = tmp_path_factory.mktemp("clone")
    for name in SOURCES.split():
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "data")
            shutil.copytree(ROOT / name, clone / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, clone / name)
    outputs = [tmp_path_factory.mktemp(name) for name in ("code", "models")]
    opened = [_wheel(folder, out) for folder, out in zip((clone, clone / "models"), outputs)]
    yield opened
    for wheel in opened:
        wheel.close()


def _metadata(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return BytesParser().parsebytes(wheel.read(name))


def _packed(wheel):
    """The names of the files that the wheel installs, but for those about itself."""
    return {name for name in wheel.namelist() if ".dist-info/" not in name}


def test_the_wheel_of_the_code_holds_the_package_and_nothing_else(wheels):
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "gmm_attention").rglob("*.py")}
    assert _packed(wheels[0]) == code


def test_the_wheel_of_the_models_holds_all_models(wheels):
    models = {path.parent.name for path in (ROOT / "models").glob("*/settings.json")}
    files = {f"{model}/{name}" for model in models for name in ("settings.json", "weights.npz")}
    files |= {f"{model}/README.md" for model in models}
    packed = {f"gmm_attention_models/{name}" for name in {"__init__.py", *files}}
    assert models and _packed(wheels[1]) == packed


def test_both_wheels_bring_the_license_and_a_description(wheels):
    for wheel in wheels:
        metadata = _metadata(wheel)
        assert metadata["License"] == "Apache-2.0" and metadata["Requires-Python"] == ">=3.9"
        assert metadata["Description-Content-Type"] == "text/markdown" and metadata.get_payload()
        (text,) = [wheel.read(name) for name in wheel.namelist() if name.endswith("/LICENSE")]
        assert text == (ROOT / "LICENSE").read_bytes()


def _required(wheel, system, python, extra=""):
    sys_platform, platform_system, machine = SYSTEMS[system]
    environment = {
        **default_environment(),
        "sys_platform": sys_platform,
        "platform_system": platform_system,
        "platform_machine": machine,
        "python_version": python,
        "python_full_version": f"{python}.1",
        "implementation_name": "cpython",
        "extra": extra,
    }
    wanted = [Requirement(text) for text in _metadata(wheel).get_all("Requires-Dist")]
    return {r.name for r in wanted if r.marker is None or r.marker.evaluate(environment)}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_tensorflow_comes_where_it_has_wheels_and_the_rest_everywhere(wheels, system, python):
    required = _required(wheels[0], system, python)
    assert {"onnxruntime", "onnx", "numpy", "scipy", "pillow", "loky"} <= required
    has_wheels = system == "Linux x86-64" and python in ("3.9", "3.10", "3.11")
    for name in ("tensorflow", "tensorflow-compression", "range-coder"):
        assert (name in required) == has_wheels, name


@pytest.mark.parametrize("extra, name", [("cluster", "distributed"), ("jxl", "pillow-jxl-plugin")])
def test_extras_bring_what_they_are_for(wheels, extra, name):
    for python in PYTHONS:
        assert name not in _required(wheels[0], "Windows", python)
        assert name in _required(wheels[0], "Windows", python, extra)
