"""Training: the module, the trainer, its callbacks and its runner."""
