"""From files to batches: sources (which files, verified), split, batches, datamodule."""
