"""Errors that the user can fix.

Each error has a one-sentence message and usually a hint. The command line prints both and exits with
`exit_status`. Any other exception is a bug. While a track is processed, `failure` turns it into one of these
errors, so that the other tracks are still split; elsewhere it ends the program with a traceback.
"""

from __future__ import annotations

import traceback


class StemsplitError(Exception):
    """An error: `message` says what is wrong, `hint` how to fix it, and `code` identifies it for programs."""

    code = "error"
    exit_status = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class DecodeError(StemsplitError):
    """The input is missing, is not a sound file, or has samples that are not finite."""

    code = "decode"


class NotFound(DecodeError):
    """No file has this name."""

    code = "not_found"


class UnsupportedChannels(DecodeError):
    """The input has more than two channels."""

    code = "channels"


class EncodeError(StemsplitError):
    """An output cannot be written: full disk, no permission, an impossible format."""

    code = "encode"


class OutputExists(EncodeError):
    """An output file exists, and `force` was not given."""

    code = "exists"


class OutputBusy(EncodeError):
    """Another program is writing an output."""

    code = "busy"


class UsageError(StemsplitError):
    """Options that do not exist, exclude each other or cannot be parsed."""

    code = "usage"
    exit_status = 2


class TemplateError(UsageError):
    """A template for file names that cannot be filled in."""

    code = "template"


class Collision(UsageError):
    """Two files would have the same name."""

    code = "collision"


class UnknownModel(UsageError):
    """No model has this name."""

    code = "model"


class UnknownStem(UsageError):
    """The model, or the folder of stems, has no such stem."""

    code = "stem"


class BadWeights(StemsplitError):
    """A weights file is damaged, or is not a stemsplit weights file."""

    code = "weights"


class BadPlugin(StemsplitError):
    """Another package's model does not work."""

    code = "plugin"


class DownloadFailed(StemsplitError):
    """Weights are missing, and the download failed or is not allowed."""

    code = "download"


class DeviceUnavailable(StemsplitError):
    """The device does not exist, or is out of memory even for the smallest batch."""

    code = "device"


class ClusterUnavailable(StemsplitError):
    """There is no Ray cluster, or it does not work."""

    code = "cluster"


class TooFewPositions(StemsplitError):
    """A mixture has only `found` distinct positions, fewer than requested."""

    def __init__(self, found: int, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.args = (found, message, hint)  # pickle passes them to __init__, for errors from Ray workers
        self.found = found


class WorkerLost(StemsplitError):
    """A track was given up because all workers that processed it were lost."""

    code = "lost"


class BadConfig(UsageError):
    """A settings file or an environment variable is invalid."""

    code = "config"


class Interrupted(StemsplitError):
    """The user or the system interrupted the program."""

    code = "interrupted"


class OutOfMemory(StemsplitError):
    """There is not enough memory for a track."""

    code = "memory"


class InternalError(StemsplitError):
    """A bug in the program; `traceback` is for its developers."""

    code = "internal"
    traceback = ""


def failure(error: Exception, track: object) -> StemsplitError:
    """Return an error from processing a track as a StemsplitError, to report it to the user."""
    if isinstance(error, StemsplitError):
        return error
    if isinstance(error, MemoryError) or "allocate memory" in str(error):  # in messages of torch and the OS
        hint = "close other programs, or choose a smaller --batch, fewer --threads and --jobs 1"
        return OutOfMemory(f"Not enough memory for `{track}`", hint)
    said, _, _ = f"{type(error).__name__}: {error}".strip().partition("\n")
    hint = "this is a bug in stemsplit; please report it, with the traceback that -v prints"
    problem = InternalError(f"Unexpected error in `{track}`: {said.removesuffix(':')}", hint)
    problem.traceback = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return problem
