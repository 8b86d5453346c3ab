"""Models on disk: exported models, training checkpoints and the authors' TF1 checkpoints."""
