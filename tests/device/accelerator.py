"""What a Trainer needs to know of the simulated device."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.strategies import SingleDeviceStrategy

from tests.device.simulated import DEVICE


class SimulatedAccelerator(Accelerator):
    """The one simulated device."""

    def setup_device(self, device: torch.device) -> None:
        assert device.type == DEVICE.type

    def teardown(self) -> None:
        pass

    @staticmethod
    def parse_devices(devices: Any) -> int:
        return 1

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [DEVICE]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "simulated"


class SimulatedStrategy(SingleDeviceStrategy):
    """Brings the model back at the end with parameters of its own: torch swaps none that a graph still holds."""

    def __init__(self) -> None:
        super().__init__(DEVICE, SimulatedAccelerator())

    def teardown(self) -> None:
        torch.__future__.set_swap_module_params_on_conversion(False)
        try:
            super().teardown()
        finally:
            torch.__future__.set_swap_module_params_on_conversion(True)


def on_the_device() -> dict[str, Any]:
    """Return the arguments of a Trainer that trains there."""
    return {"accelerator": "auto", "strategy": SimulatedStrategy()}
