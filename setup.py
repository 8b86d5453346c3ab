"""Installs the package `gmm_attention` and the commands gmm-encode, gmm-decode, gmm-train and
gmm-evaluate.

Models are not part of the package: an installed command takes one by --model, or looks for a
default in ./models.
"""

import os
import platform
import re
import sys

from setuptools import find_packages, setup

# This check runs before pip looks for the dependencies, whose absence it would report without a
# reason. It is written so that any Python can parse it.
if (
    not (3, 9) <= sys.version_info[:2] <= (3, 11)
    or platform.system() != "Linux"
    or platform.machine() != "x86_64"
):
    found = [platform.python_version(), "on", platform.system(), platform.machine()]
    sys.exit(
        "gmm-attention needs Python 3.9, 3.10 or 3.11 on Linux x86-64, and this is Python "
        + " ".join(found)
        + ".\n"
        "tensorflow-compression 2.14.1, its last release, has wheels for Python 3.9 to 3.11 on "
        "Linux x86-64 and Intel macOS alone;\n"
        "range-coder 1.1 has them for Linux x86-64 alone.\n"
        "Install it with one of these Pythons, for example: python3.11 -m venv .venv && "
        ".venv/bin/pip install ."
    )

# The version stands in the package alone, which setup.py cannot import without its dependencies.
package = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gmm_attention", "__init__.py")
with open(package, encoding="utf-8") as file:
    version = re.search(r'^__version__ = "([^"]+)"$', file.read(), re.MULTILINE).group(1)

setup(
    name="gmm-attention",
    version=version,
    description=(
        "Learned image compression with Gaussian mixture likelihoods and attention "
        "(Cheng et al., CVPR 2020) for TensorFlow 2"
    ),
    author="The gmm-attention authors",
    license="Apache-2.0",
    packages=find_packages(include=["gmm_attention", "gmm_attention.*"]),
    python_requires=">=3.9,<3.12",
    install_requires=[
        "tensorflow==2.14.1",
        "tensorflow-compression==2.14.1",
        "range-coder==1.1",
        "numpy>=1.23.5,<2",
        "imageio>=2.28,<3",
        # imageio depends on Pillow, but images.py also relies on Pillow's names of sample layouts.
        # 11.3 is the first version that writes AVIF.
        "pillow>=11.3,<14",
        "matplotlib>=3.6,<4",
        "bjontegaard==1.3.0",
        # Counts the cores within a container's quota, which Python's own count ignores.
        "loky>=3.4,<4",
        # Keeps numpy's BLAS on one thread while latents are coded.
        "threadpoolctl>=3,<4",
    ],
    extras_require={
        "test": [
            "pytest",
            "hypothesis",
            "scikit-image",
            "pillow-jxl-plugin",
            # Of mypy and import-linter, pip installs the last versions that support its Python.
            "ruff",
            "mypy",
            "import-linter",
        ],
        # For evaluate.py --codecs jxl.
        "jxl": ["pillow-jxl-plugin"],
        # CUDA 11.8 as in the extra "and-cuda" of tensorflow 2.14.1, except tensorrt: TensorFlow
        # works without it, and pip cannot install the version listed there.
        "gpu": [
            "nvidia-cublas-cu11==11.11.3.6",
            "nvidia-cuda-cupti-cu11==11.8.87",
            "nvidia-cuda-nvcc-cu11==11.8.89",
            "nvidia-cuda-runtime-cu11==11.8.89",
            "nvidia-cudnn-cu11==8.7.0.84",
            "nvidia-cufft-cu11==10.9.0.58",
            "nvidia-curand-cu11==10.3.0.86",
            "nvidia-cusolver-cu11==11.4.1.48",
            "nvidia-cusparse-cu11==11.7.5.86",
            "nvidia-nccl-cu11==2.16.5",
        ],
    },
    entry_points={
        "console_scripts": [
            "gmm-encode = gmm_attention.commands.encoder:main",
            "gmm-decode = gmm_attention.commands.decoder:main",
            "gmm-train = gmm_attention.commands.train:main",
            "gmm-evaluate = gmm_attention.commands.evaluate:main",
        ]
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Topic :: Multimedia :: Graphics",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: System :: Archiving :: Compression",
    ],
)
