"""A TrainStep -> a folder from which JAX trains on machines where TensorFlow does not run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compiler.xla import xla_data_pb2
from tensorflow.compiler.xla.service import hlo_pb2

from gmm_attention.errors import TrainingError
from gmm_attention.metrics import MS_SSIM_SMALLEST_SIDE
from gmm_attention.training import state
from gmm_attention.training.state import STATE_FILE
from gmm_attention.training.step import TrainStep
from gmm_attention.training.xla import files

# Operations that only the compiler of the tracing machine knows, or that have a hidden seed.
_NOT_PORTABLE = {"custom-call", "infeed", "outfeed", "rng", "rng-get-and-update-state"}

# Types that inputs and outputs may have. JAX has no 64-bit types by default.
_DTYPES = {
    xla_data_pb2.F32: "float32",
    xla_data_pb2.S32: "int32",
    xla_data_pb2.U8: "uint8",
}


def write(
    step: TrainStep,
    directory: str | os.PathLike[str],
    batch: int,
    crop: int,
    validation_size: Sequence[int],
    settings: Mapping[str, Any],
    half: bool = False,
) -> None:
    """Writes a step, its current state, and the runner.

    The programs contain the step's arithmetic. Learning rate and lambda stay arguments; batch,
    crop, distortion, optimizer, clipping and the decay of the moving average are fixed. See
    files.py for the files and runner.py for their use.

    Args:
      step: TrainStep on one device.
      directory: made if need be.
      batch: crops in a step.
      crop: side of a crop in pixels, a multiple of 64.
      validation_size: (height, width) of the images to validate on, in pixels, multiples of 64.
      settings: dict that JSON can hold, for the state and the description.
      half: write the state as `state.half` returns it.

    Raises:
      TrainingError: the step is spread over several devices.
      CodecError: a file cannot be written.
    """
    if step.strategy.num_replicas_in_sync > 1:
        raise TrainingError(
            "a step on several devices cannot be exported; set CUDA_VISIBLE_DEVICES to nothing or "
            "to one of them, and unset TF_CONFIG"
        )
    arguments = _arguments(batch, crop, validation_size)
    functions: dict[str, Callable[..., dict[str, tf.Tensor]]]
    functions = {"train": step.step, "validation": _validation(step)}
    programs, described = {}, {}
    for name, function in functions.items():
        programs[name], described[name] = _trace(function, arguments[name], step.state)

    arrays = _arrays(step, half)
    description = {
        "batch": batch,
        "crop": crop,
        "validation_size": list(validation_size),
        "network": {
            "num_filters": step.model.num_filters,
            "num_mixtures": step.model.num_mixtures,
            "attention": step.model.has_attention,
            "metric": step.metric,
        },
        "settings": settings,
        "programs": described,
    }
    files.save(directory, description, programs)
    state.save(os.path.join(directory, STATE_FILE), arrays, settings)


def _arguments(
    batch: int, crop: int, validation_size: Sequence[int]
) -> dict[str, list[tf.TensorSpec]]:
    """The arguments of each program, see `write`; the variables of the state are not among them."""
    return {
        "train": [
            tf.TensorSpec([batch, crop, crop, 3], tf.uint8, "images"),
            tf.TensorSpec([2], tf.int32, "seed"),
            tf.TensorSpec([], tf.float32, "learning_rate"),
            tf.TensorSpec([], tf.float32, "lmbda"),
        ],
        "validation": [tf.TensorSpec([1, *validation_size, 3], tf.uint8, "image")],
    }


def _arrays(step: TrainStep, half: bool) -> dict[str, np.ndarray]:
    """The arrays of a step's state, without those that `state.complete` can fill in."""
    arrays = state.half(step.arrays()) if half else step.arrays()
    for kinds, count in ((state.MOMENTS, "updates"), (("average",), "averaged")):
        if step.state[count] == 0:
            arrays = {n: a for n, a in arrays.items() if n.partition("/")[0] not in kinds}
    return arrays


def _validation(step: TrainStep) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """What `TrainStep.validate` computes, as a function for a graph.

    Returns:
      Function of an image, uint8 [1, H, W, 3], that returns the measures and the reconstruction.
    """

    def validation(image: tf.Tensor) -> dict[str, tf.Tensor]:
        bits_y, bits_z, reconstruction = step.measure(image)
        pair = [tf.cast(t, tf.float32) for t in (image, reconstruction)]
        results = {
            "bits_y": bits_y,
            "bits_z": bits_z,
            "mse": tf.reduce_mean(tf.math.squared_difference(*pair)),
            "reconstruction": reconstruction,
        }
        if min(image.shape[1:3]) >= MS_SSIM_SMALLEST_SIDE:
            results["ms_ssim"] = tf.image.ssim_multiscale(*pair, max_val=255.0)[0]
        return results

    return validation


def _trace(
    function: Callable[..., dict[str, tf.Tensor]],
    arguments: Sequence[tf.TensorSpec],
    variables: Mapping[str, tf.Variable],
) -> tuple[bytes, dict[str, Any]]:
    """Traces a function of tensors and variables for XLA.

    Args:
      function: returns a dict of tensors.
      arguments: list of named TensorSpec.
      variables: dict of str to tf.Variable, all those that the function may read or assign.

    Returns:
      Serialized HloModuleProto; dict of its `inputs` and `outputs`, see `files.save`.

    Raises:
      ValueError: the function uses other variables, or an operation or a type that is not the same
        on every machine.
    """
    compiled = tf.function(function, autograph=False, jit_compile=True)
    graph = compiled.get_concrete_function(*arguments)
    names = {id(variable.handle): name for name, variable in variables.items()}
    captured = zip(graph.captured_inputs, graph.graph.internal_captures)
    unknown = [inner.name for outer, inner in captured if id(outer) not in names]
    if unknown:
        raise ValueError(f"captures what is not in the state: {', '.join(unknown)}")
    data = compiled.experimental_get_compiler_ir(*arguments)(stage="hlo_serialized")
    module = hlo_pb2.HloModuleProto.FromString(data)
    _check_portable(module)
    _remove_paths(module)

    # The program's inputs are the arguments, then the captured variables. Its outputs are the
    # values of the dict, sorted by key, then the new values of variables. Its aliases tell which
    # input each of these new values replaces.
    inputs = [spec.name for spec in arguments] + [names[id(t)] for t in graph.captured_inputs]
    outputs = dict(enumerate(sorted(graph.structured_outputs)))
    for entry in module.input_output_alias.entries:
        (index,) = entry.output_shape_index
        outputs[index] = inputs[entry.parameter_number]
    shape = module.host_program_shape
    described = {
        "inputs": _described(inputs, shape.parameters),
        "outputs": _described([outputs[i] for i in sorted(outputs)], shape.result.tuple_shapes),
    }
    return module.SerializeToString(deterministic=True), described


def _check_portable(module: hlo_pb2.HloModuleProto) -> None:
    """Raises ValueError if an operation may give other results on another machine."""
    for computation in module.computations:
        for instruction in computation.instructions:
            opcode = instruction.opcode
            default_rng = (
                opcode == "rng-bit-generator"
                and instruction.rng_algorithm == xla_data_pb2.RNG_DEFAULT
            )
            if opcode in _NOT_PORTABLE or default_rng:
                what = f"{opcode} {instruction.custom_call_target}".strip()
                raise ValueError(
                    f"{instruction.metadata.op_name}: {what} is not the same on every machine"
                )


def _remove_paths(module: hlo_pb2.HloModuleProto) -> None:
    """Removes the names of source files, which are paths of the tracing machine.

    Operations keep their names, by which profiles and jax_step.py know them.
    """
    module.ClearField("stack_frame_index")
    for computation in module.computations:
        for instruction in computation.instructions:
            for field in ("source_file", "source_line"):
                instruction.metadata.ClearField(field)


def _described(names: Sequence[str], shapes: Sequence[Any]) -> list[tuple[str, str, list[int]]]:
    """Lists (name, dtype, shape) of inputs or outputs.

    Args:
      names: one for each shape.
      shapes: ShapeProtos of XLA.

    Raises:
      ValueError: there are fewer or more names than shapes, or a type is none of _DTYPES.
    """
    if len(names) != len(shapes):
        raise ValueError(f"the program has {len(shapes)} inputs or outputs, not {len(names)}")
    for name, shape in zip(names, shapes):
        if shape.element_type not in _DTYPES:
            kind = xla_data_pb2.PrimitiveType.Name(shape.element_type)
            raise ValueError(f"{name} is {kind}, not one of {', '.join(_DTYPES.values())}")
    return [
        (name, _DTYPES[shape.element_type], list(shape.dimensions))
        for name, shape in zip(names, shapes)
    ]
