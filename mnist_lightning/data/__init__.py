"""From files to batches: data sets, splits, loaders, augmentations."""
