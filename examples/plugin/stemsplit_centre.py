"""A model for `stemsplit --model centre`: what is the same in both channels, and the rest."""

import numpy as np

from stemsplit.zoo.plugins import PluginCard


def card():
    """Say what the model is. Weights are loaded later."""
    return PluginCard(
        outputs=("centre",),
        residual="sides",  # gets what the estimates leave of the mixture, so that stems sum to it
        segment=44_100,  # samples of each call; this model could do with less
        title="Centre and sides, as an example of a plugin",
        licence="MIT",
    )


def load(running, stems):
    """Return a network. `running` names device and threads; `stems` are the outputs that are needed."""

    def network(segment):
        """Map a segment `(2, time)` to estimates `(output, 2, time)`."""
        centre = segment.mean(axis=0)
        quieter = np.minimum(abs(segment[0]), abs(segment[1]))
        same_sign = segment[0] * segment[1] > 0
        return np.tile(np.where(same_sign, np.sign(centre) * quieter, 0), (len(stems), 2, 1))

    return network
