"""The original's names of variables: one for each of ours, and back."""

import pytest

from gmm_attention.checkpoints import tf1_names
from gmm_attention.model import variables


@pytest.mark.parametrize("num_mixtures, attention", [(3, True), (1, False)])
def test_every_variable_has_a_name_of_its_own_that_leads_back_to_it(num_mixtures, attention):
    ours = list(variables.by_name(variables.build_model(8, num_mixtures, attention)))
    originals = [tf1_names.original_name(name) for name in ours]
    assert len(set(originals)) == len(ours) > 100
    assert [tf1_names.our_name(name) for name in originals] == ours
    assert [tf1_names.shown_name(name) for name in ours] == originals


@pytest.mark.parametrize(
    "name",
    [
        "extra/bias",
        "conv2d/kernel",
        "bias",
        "entropy_parameter/masked/kernel",
        "entropy_parameter/layer_1/signal_conv2d/kernel",
        "analysis/Block_0/layer_2/bias",
    ],
)
def test_a_name_of_none_of_the_originals_variables_is_not_one_of_ours(name):
    ours = tf1_names.our_name(name)
    assert ours == f"/{name}" and tf1_names.shown_name(ours) == name


@pytest.mark.parametrize(
    "name, is_state",
    [
        ("global_step", True),
        ("beta2_power_1", True),
        ("analysis/Block_0_layer_2/signal_conv2d/bias/Adam_1", True),
        ("save/counter", True),
        ("analysis/Block_0_layer_2/signal_conv2d/bias", False),
        ("entropy_bottleneck/quantiles", False),
        ("analysis/Adam/bias", False),
    ],
)
def test_what_training_leaves_is_told_from_variables(name, is_state):
    assert bool(tf1_names.TRAINING_STATE.search(name)) == is_state
