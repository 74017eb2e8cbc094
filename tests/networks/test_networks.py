"""The architectures: output, number of parameters, and description in a checkpoint."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mnist_lightning import networks
from mnist_lightning.errors import UserError
from mnist_lightning.networks import registry
from mnist_lightning.networks.inspection import layers
from mnist_lightning.networks.registry import ARCHITECTURES, build, describe

PARAMETERS = {
    "BatchNormCNN": 104_938,
    "ClassicCNN": 21_840,
    "DeepCNN": 593_200,
    "DigitNet": 225_034,
    "EquivariantCNN": 598,
    "MultilayerPerceptron": 52_650,
    "ResidualCNN": 668_842,
    "SpeedCNN": 77_386,
    "TinyCNN": 3_418,
}


class Linear(nn.Module):
    """A user's network that stores its argument."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.layer = nn.Linear(784, width)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 1, 28, 28) to (B, width)."""
        logits: Tensor = self.layer(images.flatten(1))
        return logits


def test_the_list_of_parameter_counts_is_complete() -> None:
    assert ARCHITECTURES.keys() == PARAMETERS.keys()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import torhc", "cannot be imported: ModuleNotFoundError: No module named 'torhc'"),
        ("class Net: ...", "must define a network class MyNet"),
    ],
)
def test_an_invalid_file_of_an_architecture_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    (tmp_path / "my_net.py").write_text(code)
    monkeypatch.setattr(networks, "__path__", [str(tmp_path)])
    monkeypatch.setitem(sys.modules, f"{networks.__name__}.my_net", None)
    monkeypatch.delitem(sys.modules, f"{networks.__name__}.my_net")
    with pytest.raises(UserError, match=f"^networks/my_net.py {re.escape(message)}$"):
        registry._find_architectures()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_architecture_has_its_number_of_parameters(name: str) -> None:
    network = ARCHITECTURES[name]()
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_network_returns_logits_for_the_given_number_of_classes(name: str) -> None:
    network = ARCHITECTURES[name](num_classes=7).eval()
    logits = network(torch.randn(3, 1, 28, 28))
    assert logits.shape == (3, 7)
    # Probabilities would sum to one, log-probabilities to one after exp.
    assert not torch.allclose(logits.sum(1), torch.ones(3))
    assert not torch.allclose(logits.exp().sum(1), torch.ones(3))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_network_is_rebuilt_from_its_description(name: str) -> None:
    network = ARCHITECTURES[name](num_classes=7)
    again = build(describe(network))
    assert type(again) is type(network)
    assert describe(again) == describe(network)
    again.load_state_dict(network.state_dict())


def test_a_user_s_network_is_built_only_if_its_class_is_passed() -> None:
    description = describe(Linear(5))
    assert description["init_args"] == {"width": 5}
    with pytest.raises(UserError, match="known classes: BatchNormCNN, ClassicCNN"):
        build(description)
    assert isinstance(build(description, user_classes=[Linear]), Linear)


def test_a_class_path_in_a_file_is_never_imported() -> None:
    with pytest.raises(UserError, match=r"subprocess\.Popen"):
        build({"class_path": "subprocess.Popen", "init_args": {"args": ["true"]}})


def test_layers_are_listed_with_output_shape_and_parameters() -> None:
    network = ARCHITECTURES["DeepCNN"]()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    listed = layers(network)
    assert listed[0] == ("features.0", "Conv2d", [-1, 32, 26, 26], 320)
    assert listed[-1] == ("head.3", "Linear", [-1, 10], 510)
    assert sum(layer.parameters for layer in listed) == 593_200
    assert network.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_layer_with_several_outputs_is_listed_with_the_first() -> None:
    class Rows(nn.Module):
        """Processes an image row by row."""

        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.LSTM(28, 16, batch_first=True)
            self.head = nn.Linear(16, 10)

        def forward(self, images: Tensor) -> Tensor:
            states: Tensor = self.rows(images.squeeze(1))[0]
            logits: Tensor = self.head(states[:, -1])
            return logits

    assert [layer.output_shape for layer in layers(Rows())] == [[-1, 28, 16], [-1, 10]]


def test_a_layer_that_is_used_twice_is_listed_twice_and_counted_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.again, self.head = nn.Linear(28, 28), nn.Linear(784, 10)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.head(self.again(self.again(images)).flatten(start_dim=1))
            return logits

    assert [layer.parameters for layer in layers(Twice())] == [28 * 28 + 28, 0, 7850]


def test_a_network_without_stored_arguments_must_be_passed_itself() -> None:
    description = describe(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    assert description["init_args"] is None
    with pytest.raises(UserError, match="pass the network itself"):
        build(description, user_classes=[nn.Sequential])


def test_a_description_may_omit_defaults_but_not_other_arguments() -> None:
    network = build(describe(registry.ARCHITECTURES["ClassicCNN"](dropout=0.5)))
    path = describe(network)["class_path"]
    for init_args, expected in (({}, True), ({"dropout": 0.5}, True), ({"dropout": 0.1}, False)):
        described = {"class_path": path, "init_args": init_args}
        assert registry.is_described_by(network, described) is expected
    other = {"class_path": "elsewhere.Network", "init_args": {}}
    assert not registry.is_described_by(network, other)
