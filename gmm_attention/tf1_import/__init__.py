"""The authors' TF1 checkpoints to this project's variables."""
