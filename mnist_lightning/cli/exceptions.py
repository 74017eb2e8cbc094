"""Turn an exception into a message of one line and an exit status."""

import traceback

from mnist_lightning.errors import UserError, unsigned_files

MAX_REASON_CHARS = 300  # of an error that an unsigned file may have caused


def explain(error: BaseException) -> tuple[str, int]:
    """Return the message for an error, in one line, and the exit status."""
    if isinstance(error, UserError):
        return str(error), error.status
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else ""), 1
    if isinstance(error, UnicodeEncodeError):  # TensorBoard and others cannot write such a path
        return f"{error.object} contains bytes that are not UTF-8; rename the file or folder", 1
    if type(error).__name__ == "OutOfMemoryError":  # torch's, of a GPU
        smaller = "--data.batch_size N or --data.eval_batch_size N"
        return f"out of GPU memory; use smaller batches: {smaller}", 1
    if isinstance(error, RuntimeError) and "a deterministic implementation" in str(error):
        option = "--trainer.deterministic false (the run is then not exactly reproducible)"
        fix = f"give {option} or --trainer.accelerator cpu"
        return f"{str(error).split()[0]} is not deterministic on this device; {fix}", 1
    if isinstance(error, RuntimeError) and "returned nan values" in str(error):
        return "a gradient is not a number; use a smaller --model.optimizer.lr", 1
    if (path := unsigned_files.last) is not None:
        reason = " ".join(f"{type(error).__name__} {error}".split())[:MAX_REASON_CHARS]
        advice = "--debug shows the traceback"
        return f"{path} has no signature of yours, and may be invalid: {reason} ({advice})", 1
    # Lightning's exception for options that contradict each other or the data. Its class is not
    # imported here: every command would import lightning.
    if isinstance(error, ValueError) or type(error).__name__ == "MisconfigurationException":
        return " ".join(str(error).split()), 2
    if (configured := _configured_option(error)) is not None:
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"--{configured}: {reason} (--debug shows the traceback)", 1
    advice = "this looks like a bug; --debug shows the traceback"
    return f"{type(error).__name__}: {error} ({advice})", 1


# The classes that a user configures, by their modules.
CONFIGURED = {
    "torch.optim": "model.optimizer",
    "mnist_lightning.training.lr_schedules": "model.lr_scheduler",
    "mnist_lightning.data.augmentations": "data.augment",
    "mnist_lightning.data.degradations": "data.augment",
    "lightning.pytorch.callbacks": "trainer.callbacks",
}


def _configured_option(error: BaseException) -> str | None:
    """Return the option whose class raised an error during training; None for other code.

    Some classes accept arguments with which they fail later. The error must come from their own
    code, or from functions of torch that they call.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        module = frame.f_globals.get("__name__", "")
        for prefix, option in CONFIGURED.items():
            if f"{module}.".startswith(f"{prefix}."):
                return option
        if not f"{module}.".startswith("torch."):
            return None
    return None
