"""Runs an exported training step under JAX, in place of a TrainStep where TensorFlow does not run.

Tested with JAX 0.10.2, 0.11.2 and 0.12.0.1. The functions from `_to_artifact` on use
`jax.extend.mlir` and `jaxlib.mlir`, which may change in other versions. Everything else is JAX's
documented interface.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.extend import mlir as extend_mlir
from jax.interpreters import mlir
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

from gmm_attention.errors import ImageError
from gmm_attention.training import state
from gmm_attention.training.xla import files

PRECISIONS = ("float32", "tf32")


class Program:
    """Takes steps and measures images as a TrainStep does, on the first device of JAX.

    It has no state until `restore` is called.

    Args:
      directory: folder that `program.write` wrote.
      precision: of float32 convolutions in training; validation always uses float32. What the
        step was exported with in bfloat16 stays bfloat16.
        "float32": everywhere.
        "tf32": convolutions at the device's default precision, which on NVIDIA GPUs rounds operands
          to 10 bits of mantissa; small products, such as those that make kernels, in float32.

    Attributes:
      batch, crop: crops in a step, and their side in pixels.
      validation_size: (height, width) of the images that are measured, in pixels.
      device: jax.Device.
      part, chief: see `protocols.Trainer`; there is a single process.

    Raises:
      ValueError: precision is unknown.
      TrainingError: files are missing or damaged, see `files.load`.
    """

    part: tuple[int, int] = (0, 1)
    chief = True

    def __init__(self, directory: str | os.PathLike[str], precision: str = "tf32") -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, not {precision!r}")
        description, self._programs = files.load(directory)
        self._described = description["programs"]
        self._precision = precision
        self.batch: int = description["batch"]
        self.crop: int = description["crop"]
        self.validation_size: tuple[int, int] = tuple(description["validation_size"])
        self.device = jax.devices()[0]
        outputs = {name for name, *_ in self._described["train"]["outputs"]}
        self._arguments: dict[str, jax.ShapeDtypeStruct] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for name, dtype, shape in self._described["train"]["inputs"]:
            if name in outputs:
                self._shapes[name] = tuple(shape)
            else:
                self._arguments[name] = jax.ShapeDtypeStruct(shape, dtype)
        self._state = None

    @functools.cached_property
    def lowered(self) -> jax.stages.Lowered:
        """The step before it is compiled."""
        call = _callable(self._programs["train"], self._described["train"], self._precision)

        def step(state: dict[str, Any], arguments: dict[str, Any]) -> tuple[Any, Any]:
            results = call({**state, **arguments})
            return {name: results.pop(name) for name in state}, results

        specs = {n: jax.ShapeDtypeStruct(s, np.float32) for n, s in self._shapes.items()}
        return jax.jit(step, donate_argnums=0).lower(specs, self._arguments)

    @functools.cached_property
    def compiled(self) -> jax.stages.Compiled:
        """The compiled step; the first access compiles it."""
        return self.lowered.compile()

    @functools.cached_property
    def _measure(self) -> Callable[..., dict[str, jax.Array]]:
        described = self._described["validation"]
        call = _callable(self._programs["validation"], described, "float32")
        return jax.jit(lambda state, image: call({**state, "image": image}))

    def __call__(
        self, images: np.ndarray, seed: Sequence[int], learning_rate: float, lmbda: float
    ) -> dict[str, jax.Array]:
        """Takes a step. It returns at once, before the device is done.

        Args:
          images: uint8 [batch, crop, crop, 3], not to be written to any more.
          seed: two integers, from which the noise is drawn.
          learning_rate: of this step.
          lmbda: weight of the distortion in the loss.

        Returns:
          dict of scalars as `TrainStep` returns; float() of one waits for the step.
        """
        arguments = {
            "images": images,
            "seed": np.asarray(seed, np.int32),
            "learning_rate": np.float32(learning_rate),
            "lmbda": np.float32(lmbda),
        }
        # device_put commits the arguments to the device, like the state. With uncommitted arguments
        # beside a committed state, the step would have to be compiled again.
        self._state, metrics = self.compiled(self._state, jax.device_put(arguments, self.device))
        return metrics

    def middle(self, image: np.ndarray, name: str = "image") -> np.ndarray:
        """Cuts out the part of an image that `validate` measures: its middle.

        The part has the size `validation_size`, with height and width swapped if the image is
        upright and that size is not, or the other way round.

        Args:
          image: uint8 [H, W, 3].
          name: of the image, for the message.

        Returns:
          uint8, a view of the image.

        Raises:
          ImageError: the image is smaller.
        """
        height, width = self.validation_size
        if (image.shape[0] - image.shape[1]) * (height - width) < 0:
            height, width = width, height
        top, left = image.shape[0] - height, image.shape[1] - width
        if top < 0 or left < 0:
            raise ImageError(
                f"{name}: {image.shape[1]}x{image.shape[0]} pixels, and validation takes "
                f"{width}x{height}; leave it out, or export the step with a smaller size"
            )
        return image[top // 2 :, left // 2 :][:height, :width]

    def validate(self, image: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
        """Measures the middle of an image with the moving average; no file is written.

        Args:
          image: uint8 [H, W, 3].

        Returns:
          dict of floats: `bpp_y`, `bpp_z`, `psnr` (dB), `ms_ssim` (NaN if a side is under 161
          pixels); the reconstruction of `middle(image)`, uint8.

        Raises:
          ImageError: the image is smaller than `validation_size`.
        """
        image = self.middle(image)
        # The program has one size: an image whose sides are swapped is transposed for it.
        swapped = image.shape[:2] != self.validation_size
        given = np.ascontiguousarray(image.swapaxes(0, 1) if swapped else image)[None]
        results = jax.device_get(self._measure(self._state, jax.device_put(given, self.device)))
        num_pixels = image.shape[0] * image.shape[1]
        mse = float(results["mse"])
        measures = {
            "bpp_y": float(results["bits_y"]) / num_pixels,
            "bpp_z": float(results["bits_z"]) / num_pixels,
            "psnr": 10 * np.log10(255**2 / mse).item() if mse else float("inf"),
            "ms_ssim": float(results.get("ms_ssim", "nan")),
        }
        reconstruction = np.array(results["reconstruction"][0])
        return measures, reconstruction.swapaxes(0, 1) if swapped else reconstruction

    def arrays(self) -> dict[str, np.ndarray]:
        """The state, by the names of `TrainStep.state`."""
        # Copies, since on a CPU device_get may return views of memory that the next step reuses.
        return {name: np.array(array) for name, array in jax.device_get(self._state).items()}

    def restore(self, arrays: Mapping[str, np.ndarray], source: str | os.PathLike[str]) -> None:
        """Replaces the state by one that `arrays` returned, or by a part of it.

        Args:
          arrays: dict of str to numpy array; see `state.complete` for what may be missing.
          source: path that the arrays come from, for the message.

        Raises:
          CheckpointError: the arrays do not fit, see `state.complete`.
        """
        completed = state.complete(arrays, self._shapes, source)
        self._state = None  # frees the device's memory before the new state needs it
        self._state = jax.device_put(completed, self.device)

    def alike(self, number: int) -> bool:
        """See `protocols.Trainer`; there is a single process."""
        return True

    def agree(self, flag: bool) -> bool:
        """See `protocols.Trainer`; there is a single process."""
        return flag


def _callable(
    hlo: bytes, described: Mapping[str, Any], precision: str
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Makes an HloModuleProto a function that JAX can compile.

    Args:
      hlo: serialized HloModuleProto.
      described: its `inputs` and `outputs`, see `files.save`.
      precision: see Program.

    Returns:
      Function of a dict of arrays that returns a dict of arrays.
    """
    inputs, outputs = (
        {name: jax.ShapeDtypeStruct(shape, dtype) for name, dtype, shape in described[kind]}
        for kind in ("inputs", "outputs")
    )

    # JAX can only call programs that it has exported itself. So a stand-in with the same inputs and
    # outputs is exported, and its code is then replaced by that of the program.
    @functools.partial(jax.jit, keep_unused=True)
    def stand_in(*_):
        return [jnp.zeros(spec.shape, spec.dtype) for spec in outputs.values()]

    exported = dataclasses.replace(
        jax.export.export(stand_in)(*inputs.values()),
        mlir_module_serialized=_to_artifact(hlo, precision),
        _get_vjp=None,
    )
    return lambda arrays: dict(zip(outputs, exported.call(*(arrays[name] for name in inputs))))


def _to_artifact(hlo: bytes, precision: str) -> bytes:
    """Converts a serialized HloModuleProto to StableHLO as jax.export stores it.

    Args:
      hlo: serialized HloModuleProto.
      precision: see Program.
    """
    with mlir.make_ir_context(), ir.Location.unknown():
        module = ir.Module.parse(extend_mlir.hlo_to_stablehlo(hlo))
        operations = list(_walk(module.operation))
        for operation in (module.operation, *operations):
            for key in [a for a in operation.attributes if a.startswith("mhlo.")]:
                del operation.attributes[key]
        for operation in operations:
            if operation.name == "mhlo.copy":  # an identity, in a dialect that JAX cannot store
                operation.results[0].replace_all_uses_with(operation.operands[0])
                operation.erase()
            elif operation.name in ("stablehlo.dot", "stablehlo.dot_general"):
                _set_precision(operation, "HIGHEST")
            elif operation.name == "stablehlo.convolution":
                _set_precision(operation, "HIGHEST" if precision == "float32" else "DEFAULT")
        module.operation.verify()
        return extend_mlir.serialize_portable_artifact(module, stablehlo.get_current_version())


def _walk(operation: Any) -> Iterator[Any]:
    """Yields all operations inside an operation, innermost first."""
    for region in operation.regions:
        for block in region:
            for inner in block.operations:
                yield from _walk(inner.operation)
                yield inner.operation


def _set_precision(operation: Any, precision: str) -> None:
    """Sets the precision of both operands of a convolution or product."""
    attribute = ir.Attribute.parse(f"#stablehlo<precision {precision}>")
    operation.attributes["precision_config"] = ir.ArrayAttr.get([attribute] * 2)
