"""A TrainStep to a folder from which JAX trains where TensorFlow does not run."""

import os

import tensorflow as tf
from tensorflow.compiler.xla import xla_data_pb2
from tensorflow.compiler.xla.service import hlo_pb2

from gmm_attention.errors import TrainingError
from gmm_attention.evaluation.metrics import MS_SSIM_SMALLEST_SIDE
from gmm_attention.training import program_files, state
from gmm_attention.training.state import STATE_FILE

# What is bound to the compiler that traced, or has a seed of its own.
_NOT_PORTABLE = {"custom-call", "infeed", "outfeed", "rng", "rng-get-and-update-state"}

# JAX has no others by default; also the whole interface.
_DTYPES = {
    xla_data_pb2.F32: "float32",
    xla_data_pb2.S32: "int32",
    xla_data_pb2.U8: "uint8",
}


def write(step, directory, batch, crop, validation_size, settings, half=False):
    """Writes a step, its present state, and the runner, into a directory, made if need be.

    The programs hold the step's arithmetic; learning rate and lambda stay arguments, while batch,
    crop, distortion, optimizer, clipping and the moving average's decay are fixed. See
    program_files.py for the files and runner.py for their use.

    Args:
      step: TrainStep, of one device.
      batch: crops in a step.
      crop: their sides in pixels, a multiple of 64.
      validation_size: (height, width) in pixels, multiples of 64, of the images to validate on.
      settings: what JSON can hold; goes into the state and the description.
      half: write the state by `state.half`.

    Raises:
      TrainingError: the step is spread over several devices.
      CodecError: a file cannot be written.
    """
    if step.strategy.num_replicas_in_sync > 1:
        raise TrainingError(
            "a step of several devices cannot be exported; set CUDA_VISIBLE_DEVICES to nothing or "
            "one of them, and leave TF_CONFIG away"
        )
    height, width = validation_size
    arguments = {
        "train": [
            tf.TensorSpec([batch, crop, crop, 3], tf.uint8, "images"),
            tf.TensorSpec([2], tf.int32, "seed"),
            tf.TensorSpec([], tf.float32, "learning_rate"),
            tf.TensorSpec([], tf.float32, "lmbda"),
        ],
        "validation": [tf.TensorSpec([1, height, width, 3], tf.uint8, "image")],
    }
    functions = {"train": step.step, "validation": _validation(step)}
    programs, described = {}, {}
    for name, function in functions.items():
        programs[name], described[name] = _trace(function, arguments[name], step.state)

    arrays = state.half(step.arrays()) if half else step.arrays()
    # What `state.complete` fills in by itself need not travel.
    for kinds, count in ((state.MOMENTS, "updates"), (("average",), "averaged")):
        if step.state[count] == 0:
            arrays = {n: a for n, a in arrays.items() if n.partition("/")[0] not in kinds}
    description = {
        "batch": batch,
        "crop": crop,
        "validation_size": [height, width],
        "network": {
            "num_filters": step.model.num_filters,
            "num_mixtures": step.model.num_mixtures,
            "attention": step.model.has_attention,
            "metric": step.metric,
        },
        "settings": settings,
        "programs": described,
    }
    program_files.save(directory, description, programs)
    state.save(os.path.join(directory, STATE_FILE), arrays, settings)


def _validation(step):
    """What `TrainStep.validate` computes, of one image uint8 [1, H, W, 3], as a graph."""

    def validation(image):
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


def _trace(function, arguments, variables):
    """Traces a function of tensors and variables for XLA.

    Args:
      function: returns a dict of tensors.
      arguments: list of named TensorSpec.
      variables: dict of str to tf.Variable, all that the function may read or assign.

    Returns:
      bytes of an HloModuleProto; dict of its `inputs` and `outputs`, see `program_files.save`.

    Raises:
      ValueError: it uses other variables, or what is not the same on every machine.
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

    # The program takes its arguments, then what it captures; it returns the dict's values in the
    # order of their keys, then the new values of variables, which it says are to take the old
    # ones' place.
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


def _check_portable(module):
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


def _remove_paths(module):
    """Takes out the tracing machine's file names; operations keep theirs, for profiles."""
    module.ClearField("stack_frame_index")
    for computation in module.computations:
        for instruction in computation.instructions:
            for field in ("source_file", "source_line"):
                instruction.metadata.ClearField(field)


def _described(names, shapes):
    """List of (name, dtype, shape). Raises ValueError."""
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
