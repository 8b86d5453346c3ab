"""Installs the package `gmm_attention` and the commands gmm-encode, gmm-decode, gmm-train and
gmm-evaluate.

The models are a package of their own, see `models/setup.cfg`.
"""

import os
import re

from setuptools import find_packages, setup

# Where tensorflow-compression's last release, 2.14.1, and the TensorFlow that it needs have wheels,
# apart from Intel macOS. Training needs both; encoding, decoding and evaluating do not.
HAS_TENSORFLOW = (
    "platform_system == 'Linux' and platform_machine == 'x86_64' and python_version < '3.12' "
    "and implementation_name == 'cpython'"
)

CLUSTER = ["distributed"]
# Later versions have no wheels for Python 3.9.
JPEG_XL = ["pillow-jxl-plugin", "pillow-jxl-plugin<1.3.5; python_version < '3.10'"]

root = os.path.dirname(os.path.abspath(__file__))


def read(*path: str) -> str:
    with open(os.path.join(root, *path), encoding="utf-8") as file:
        return file.read()


# The version stands in the package alone, which setup.py cannot import without its dependencies.
version = re.search(
    r'^__version__ = "([^"]+)"$', read("gmm_attention", "__init__.py"), re.MULTILINE
).group(1)

setup(
    name="gmm-attention",
    version=version,
    description=(
        "Learned image compression with Gaussian mixture likelihoods and attention "
        "(Cheng et al., CVPR 2020): coding by ONNX Runtime, training by TensorFlow 2"
    ),
    long_description=read("README.md"),
    long_description_content_type="text/markdown",
    author="The gmm-attention authors",
    license="Apache-2.0",
    packages=find_packages(include=["gmm_attention", "gmm_attention.*"]),
    python_requires=">=3.9",
    install_requires=[
        f"tensorflow==2.14.1; {HAS_TENSORFLOW}",
        f"tensorflow-compression==2.14.1; {HAS_TENSORFLOW}",
        # Decodes on these Pythons, see `entropy_coding/range_coder.py`. It has wheels for Linux
        # x86-64 alone, and no source release.
        f"range-coder==1.1; {HAS_TENSORFLOW}",
        # The network without TensorFlow: onnx writes it, ONNX Runtime runs it. From 1.19 on, onnx
        # cannot be imported beside TensorFlow's ml-dtypes 0.2.0, which pip does not know.
        "onnxruntime>=1.19,<2",
        "onnx>=1.17,<2",
        f"onnx<1.19; {HAS_TENSORFLOW}",
        # TensorFlow 2.14 limits it to versions below 2 by itself.
        "numpy>=1.23.5,<3",
        "scipy>=1.9,<2",
        "threadpoolctl>=3,<4",
        "imageio>=2.28,<3",
        # imageio depends on Pillow, but images.py also relies on Pillow's names of sample layouts.
        # 11.3 is the first version that writes AVIF.
        "pillow>=11.3,<14",
        # Tells damaged JPEG files, which Pillow decodes without a word.
        "simplejpeg>=1.8,<2",
        "matplotlib>=3.6,<4",
        "bjontegaard==1.3.0",
        # Counts the cores within a container's quota, which Python's own count ignores.
        "loky>=3.4,<4",
    ],
    extras_require={
        "test": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "scikit-image",
            *JPEG_XL,
            *CLUSTER,
            # Builds the wheels that test_packaging.py looks into. Until Python 3.11, a virtual
            # environment comes with one.
            "setuptools>=70.1; python_version >= '3.12'",
            # Of mypy and import-linter, pip installs the last versions that support its Python.
            "ruff",
            "mypy",
            "import-linter",
        ],
        # For images that are shared among several machines.
        "cluster": CLUSTER,
        # For evaluate.py --codecs jxl.
        "jxl": JPEG_XL,
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
        "Operating System :: MacOS :: MacOS X",
        "Operating System :: Microsoft :: Windows",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Multimedia :: Graphics",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: System :: Archiving :: Compression",
    ],
)
