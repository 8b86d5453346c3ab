"""The models of this folder; installed, they are the package `gmm_attention_models`."""
