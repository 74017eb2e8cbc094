"""The command `sweep`: hyper-parameters searched for, by Optuna."""
