"""Training devices: one or several, on one or several machines, with Lightning Fabric."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from stemsplit.defaults import install_extra
from stemsplit.errors import DeviceUnavailable, StemsplitError
from stemsplit.runtime import pick_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = ("float32", "bfloat16", "float16")
PACKAGES = ("lightning_fabric", "matplotlib")


def launch(device: str = "cpu", *, precision: str = "float32", devices: int = 1, nodes: int = 1) -> Fabric:
    """Launch Fabric and return it; with several devices, in one process per device.

    This starts the processes on this machine, with the command line of this process. On other nodes, the user
    starts the same command, in the environment set by torchrun or SLURM.

    Raises:
        StemsplitError: a package that only training needs is not installed.
        DeviceUnavailable: there are too few devices, or they do not support the precision.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise StemsplitError(f"Training needs {' and '.join(missing)}", install_extra("train"))
    kind = pick_device(device)
    here = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, devices)
    if devices > here:
        raise DeviceUnavailable(
            f"{devices} {kind} devices requested, but {here} available", f"use --devices {here}"
        )
    if precision == "float16" and kind == "cpu":
        raise DeviceUnavailable("float16 is for GPUs", "use --precision bfloat16 or float32")
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=kind,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        plugins=[_precision(precision, kind)],
    )
    fabric.launch()
    return fabric


def _precision(precision: str, kind: str) -> Any:
    from lightning_fabric.plugins.precision import MixedPrecision, Precision

    if precision == "float32":
        return Precision()

    class Autocast(MixedPrecision):
        """Keeps the input in float32, because log magnitudes must be standardized before they are rounded."""

        def convert_input(self, data: Any) -> Any:
            return data

    return Autocast("bf16-mixed" if precision == "bfloat16" else "16-mixed", kind)
