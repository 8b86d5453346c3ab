"""An exported training step run by JAX: what TrainStep is where TensorFlow does not run.

Tried with JAX 0.10.2, 0.11.2 and 0.12.0.1. What may change with JAX is `jax.extend.mlir` and
`jaxlib.mlir`, in the functions from `_to_artifact` on; all else is its documented interface.
"""

import dataclasses
import functools
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.extend import mlir as extend_mlir
from jax.interpreters import mlir
from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

from gmm_attention.errors import ImageError
from gmm_attention.training import program_files, state

PRECISIONS = ("float32", "tf32", "bfloat16")

# Convolutions of analysis and synthesis by the names that TensorFlow gave them, but for GDN's:
# those whose operands `step.build_model` rounds.
_TRANSFORM = re.compile(r"/(analysis|synthesis)/(?!.*/i?gdn/)")


class Program:
    """Steps on a model and the measure of an image, as TrainStep, on the first device.

    There is no state until `restore` gives one.

    Args:
      directory: that `program.write` wrote.
      precision: of training; validation always has float32.
        "float32": everywhere.
        "tf32": convolutions as the device likes best, on NVIDIA's GPUs with operands rounded to
          10 bits of mantissa; small products, such as those of kernels, in float32.
        "bfloat16": also operands and results of the convolutions of analysis and synthesis
          rounded to 8 bits (sums, weights and all else stay float32). A step that was exported
          like that stays so at any precision.

    Raises:
      TrainingError: files are missing or damaged, see `program_files.load`.

    Attributes:
      batch, crop: crops in a step, and their sides in pixels.
      validation_size: (height, width) in pixels.
      device: jax.Device.
      part, chief: as of a TrainStep in a single process.
    """

    part, chief = (0, 1), True

    def __init__(self, directory, precision="tf32"):
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, not {precision!r}")
        description, self._programs = program_files.load(directory)
        self._described = description["programs"]
        self._precision = precision
        self.batch, self.crop = description["batch"], description["crop"]
        self.validation_size = tuple(description["validation_size"])
        self.device = jax.devices()[0]
        outputs = {name for name, *_ in self._described["train"]["outputs"]}
        self._arguments, self._shapes = {}, {}
        for name, dtype, shape in self._described["train"]["inputs"]:
            if name in outputs:
                self._shapes[name] = tuple(shape)
            else:
                self._arguments[name] = jax.ShapeDtypeStruct(shape, dtype)
        self._state = None

    @functools.cached_property
    def lowered(self):
        """The step before it is compiled, a jax.stages.Lowered."""
        call = _callable(self._programs["train"], self._described["train"], self._precision)

        def step(state, arguments):
            results = call({**state, **arguments})
            return {name: results.pop(name) for name in state}, results

        specs = {n: jax.ShapeDtypeStruct(s, np.float32) for n, s in self._shapes.items()}
        return jax.jit(step, donate_argnums=0).lower(specs, self._arguments)

    @functools.cached_property
    def compiled(self):
        """The step, a jax.stages.Compiled; it is compiled the first time that one asks."""
        return self.lowered.compile()

    @functools.cached_property
    def _measure(self):
        described = self._described["validation"]
        call = _callable(self._programs["validation"], described, "float32")
        return jax.jit(lambda state, image: call({**state, "image": image}))

    def __call__(self, images, seed, learning_rate, lmbda):
        """Takes a step; returns at once, while the device is at it.

        Args:
          images: uint8 [batch, crop, crop, 3], not to be written to any more.
          seed: int32 [2], from which the noise is drawn.
          learning_rate, lmbda: floats.

        Returns:
          dict of scalars as of a TrainStep, jax.Arrays: float() of one waits for the step.
        """
        arguments = {
            "images": images,
            "seed": np.asarray(seed, np.int32),
            "learning_rate": np.float32(learning_rate),
            "lmbda": np.float32(lmbda),
        }
        # Not left to the call, which would not take uncommitted arrays beside committed ones
        # without being compiled anew.
        self._state, metrics = self.compiled(self._state, jax.device_put(arguments, self.device))
        return metrics

    def middle(self, image, name="image"):
        """Cuts out what `validate` measures: the middle, of the program's size or that turned.

        Args:
          image: uint8 [H, W, 3].
          name: for the message.

        Raises:
          ImageError: the image is smaller.
        """
        height, width = self.validation_size
        if (image.shape[0] - image.shape[1]) * (height - width) < 0:  # upright and lying
            height, width = width, height
        top, left = image.shape[0] - height, image.shape[1] - width
        if top < 0 or left < 0:
            raise ImageError(
                f"{name}: {image.shape[1]}x{image.shape[0]} pixels, and validation takes "
                f"{width}x{height}; leave it out, or export the step with a smaller size"
            )
        return image[top // 2 :, left // 2 :][:height, :width]

    def validate(self, image):
        """Codes the middle of an image with the moving average, without files.

        Args:
          image: uint8 [H, W, 3].

        Returns:
          dict of floats: `bpp_y`, `bpp_z`, `psnr` (dB), `ms_ssim` (NaN where a side is under 161
          pixels); the reconstruction of `middle(image)`, uint8.

        Raises:
          ImageError: the image is smaller than `validation_size`.
        """
        image = self.middle(image)
        turned = image.shape[:2] != self.validation_size
        upright = np.ascontiguousarray(image.swapaxes(0, 1) if turned else image)[None]
        results = jax.device_get(self._measure(self._state, jax.device_put(upright, self.device)))
        num_pixels = image.shape[0] * image.shape[1]
        mse = float(results["mse"])
        measures = {
            "bpp_y": float(results["bits_y"]) / num_pixels,
            "bpp_z": float(results["bits_z"]) / num_pixels,
            "psnr": 10 * np.log10(255**2 / mse).item() if mse else float("inf"),
            "ms_ssim": float(results.get("ms_ssim", "nan")),
        }
        reconstruction = np.array(results["reconstruction"][0])
        return measures, reconstruction.swapaxes(0, 1) if turned else reconstruction

    def arrays(self):
        """dict of str to numpy array: the state as it is now."""
        # Copies, for on a CPU device_get may give views of what the next step writes to.
        return {name: np.array(array) for name, array in jax.device_get(self._state).items()}

    def restore(self, arrays, source):
        """Takes back what `arrays` gave, or a part of it (see `state.complete`).

        Args:
          source: file that the arrays come from, for the message.

        Raises:
          CheckpointError: they do not fit, see `state.complete`.
        """
        arrays = state.complete(arrays, self._shapes, source)
        self._state = None  # a GPU need not hold both
        self._state = jax.device_put(arrays, self.device)

    def alike(self, number):
        """As of a TrainStep in a single process."""
        return True

    def agree(self, flag):
        """As of a TrainStep in a single process."""
        return flag


def _callable(hlo, described, precision):
    """An HloModuleProto as a function that JAX can compile: dict of arrays to dict of arrays."""
    inputs, outputs = (
        {name: jax.ShapeDtypeStruct(shape, dtype) for name, dtype, shape in described[kind]}
        for kind in ("inputs", "outputs")
    )

    # JAX calls programs that it has exported itself: one of the same signature lends its shell.
    @functools.partial(jax.jit, keep_unused=True)
    def stand_in(*_):
        return [jnp.zeros(spec.shape, spec.dtype) for spec in outputs.values()]

    exported = dataclasses.replace(
        jax.export.export(stand_in)(*inputs.values()),
        mlir_module_serialized=_to_artifact(hlo, precision),
        _get_vjp=None,
    )
    return lambda arrays: dict(zip(outputs, exported.call(*(arrays[name] for name in inputs))))


def _to_artifact(hlo, precision):
    """An HloModuleProto to StableHLO of a precision, in the form that jax.export keeps it."""
    with mlir.make_ir_context(), ir.Location.unknown():
        module = ir.Module.parse(extend_mlir.hlo_to_stablehlo(hlo))
        operations = list(_walk(module.operation))
        for operation in (module.operation, *operations):
            for key in [a for a in operation.attributes if a.startswith("mhlo.")]:
                del operation.attributes[key]
        for operation in operations:
            if operation.name == "mhlo.copy":  # an identity, of a dialect that JAX does not keep
                operation.results[0].replace_all_uses_with(operation.operands[0])
                operation.erase()
            elif operation.name in ("stablehlo.dot", "stablehlo.dot_general"):
                _set_precision(operation, "HIGHEST")
            elif operation.name == "stablehlo.convolution":
                _set_precision(operation, "HIGHEST" if precision == "float32" else "DEFAULT")
                if precision == "bfloat16" and _TRANSFORM.search(str(operation.location)):
                    _round_to_bfloat16(operation)
        module.operation.verify()
        return extend_mlir.serialize_portable_artifact(module, stablehlo.get_current_version())


def _walk(operation):
    """All operations inside of one, innermost first."""
    for region in operation.regions:
        for block in region:
            for inner in block.operations:
                yield from _walk(inner.operation)
                yield inner.operation


def _set_precision(operation, precision):
    attribute = ir.Attribute.parse(f"#stablehlo<precision {precision}>")
    operation.attributes["precision_config"] = ir.ArrayAttr.get([attribute] * 2)


def _round_to_bfloat16(operation):
    """Replaces a convolution of float32 by one of bfloat16 between conversions.

    The result, too: XLA computes one of bfloat16 operands with a float32 result in float32 on
    GPUs (its `ConvBfloat16Support` has no mixed precision).
    """
    narrow, result = ir.BF16Type.get(), operation.results[0]
    with ir.InsertionPoint(operation), operation.location:
        operands = [
            stablehlo.convert(ir.RankedTensorType.get(operand.type.shape, narrow), operand)
            for operand in operation.operands
        ]
        rounded = ir.Operation.create(
            operation.name,
            results=[ir.RankedTensorType.get(result.type.shape, narrow)],
            operands=operands,
            attributes={name: operation.attributes[name] for name in operation.attributes},
        )
        result.replace_all_uses_with(stablehlo.convert(result.type, rounded.result))
    operation.erase()
