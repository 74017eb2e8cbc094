"""From a photo to the 28x28 image that a network gets."""
