"""Loading a model by its name, for the public API."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stemsplit.defaults import DEFAULT_MODEL
from stemsplit.errors import UsageError
from stemsplit.exclusions import refuse_exclusions
from stemsplit.options import RuntimeKeywords, RuntimeOptions
from stemsplit.separation.separator import AnySeparator, FittedMethod
from stemsplit.zoo.ref import ModelRef

if TYPE_CHECKING:
    from typing_extensions import Unpack


def load_separator(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    stems: Sequence[str] | None = None,
    two_stems: str | None = None,
    then: Mapping[str, str] | None = None,
    mask: str | None = None,
    **running: Unpack[RuntimeKeywords],
) -> AnySeparator:
    """Load a model, and return it as a separator.

    Only the networks of the `stems` are loaded and run. With all stems, the masks sum to one. With some
    stems, each mask is independent, unless one network predicts all stems. `two_stems` gives one stem and the
    residual; `then={"vocals": "NAME"}` splits a stem further with another model.
    Other keywords are fields of `RuntimeOptions`: runtime, device, precision, batch, threads, fast and more.

    Raises:
        UnknownModel: there is no such model.
        BadWeights: the weights file is damaged.
        DeviceUnavailable: the device or runtime does not exist.
        UsageError: the model has no such stem, or no such mask, or must be fitted to each track.
    """
    refuse_exclusions({"two_stems": two_stems, "then": then})
    ref = ModelRef.parse(model).then(then or {})
    method = ref.load(RuntimeOptions(**running), stems=stems, two_stems=two_stems, mask=mask)
    if isinstance(method, FittedMethod):
        raise UsageError(f"{model} needs a whole track before it can start", "choose a trained model")
    return method
