"""Load the state of an optimizer in the precision in which it was saved."""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def load_in_saved_precision(optimizer: Optimizer) -> None:
    """Make `optimizer.load_state_dict` keep the types of the saved state.

    torch converts all values to the type of the parameters. But NAdam's `mu_product` and ASGD's
    `eta` and `mu` are float32 for every parameter type; rounded to float16 they change the
    following steps.
    """
    saved: list[dict[str, Any]] = []

    def remember(_: Optimizer, state_dict: dict[str, Any]) -> None:
        saved[:] = [state_dict]

    def restore(optimizer: Optimizer) -> None:
        (state_dict,) = saved
        saved.clear()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        indices = [index for group in state_dict["param_groups"] for index in group["params"]]
        for parameter, index in zip(parameters, indices, strict=True):
            if parameter in optimizer.state:
                state = optimizer.state[parameter]
                for name, value in state_dict["state"].get(index, {}).items():
                    state[name] = _unrounded(value, state[name])

    optimizer.register_load_state_dict_pre_hook(remember)
    optimizer.register_load_state_dict_post_hook(restore)


def _unrounded(saved: Any, loaded: Any) -> Any:
    """Return `loaded` if its type did not change; otherwise `saved`, on the device of `loaded`."""
    if isinstance(saved, Tensor) and isinstance(loaded, Tensor) and saved.dtype != loaded.dtype:
        return saved.to(loaded.device, copy=True)
    if isinstance(saved, list) and isinstance(loaded, list):
        return [_unrounded(*pair) for pair in zip(saved, loaded, strict=True)]
    return loaded
