"""Load the state of an optimizer in the precision in which it was saved."""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def load_in_saved_precision(optimizer: Optimizer) -> None:
    """Make `optimizer.load_state_dict` keep the types of the saved state.

    torch converts all of it to the type of the parameters, but not all of it has that type:
    NAdam's `mu_product` and ASGD's `eta` and `mu` are float32 whatever the parameters are. Rounded
    to float16 they change the following steps.
    """
    saved: list[dict[str, Any]] = []

    def remember(_: Optimizer, state_dict: dict[str, Any]) -> None:
        saved[:] = [state_dict]

    def restore(optimizer: Optimizer) -> None:
        (state_dict,) = saved
        saved.clear()
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        numbers = [each for group in state_dict["param_groups"] for each in group["params"]]
        for parameter, number in zip(parameters, numbers, strict=True):
            if parameter in optimizer.state:
                state = optimizer.state[parameter]
                for name, value in state_dict["state"].get(number, {}).items():
                    state[name] = _in_type_of(value, state[name])

    optimizer.register_load_state_dict_pre_hook(remember)
    optimizer.register_load_state_dict_post_hook(restore)


def _in_type_of(saved: Any, loaded: Any) -> Any:
    """Return `loaded`, on its device, where it lost nothing; otherwise `saved` on that device."""
    if isinstance(saved, Tensor) and isinstance(loaded, Tensor) and saved.dtype != loaded.dtype:
        return saved.to(loaded.device, copy=True)
    if isinstance(saved, list) and isinstance(loaded, list):
        return [_in_type_of(*pair) for pair in zip(saved, loaded, strict=True)]
    return loaded
