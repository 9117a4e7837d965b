"""What can go wrong with a notebook."""

from pulse import PulseError


class NotebookError(PulseError):
    """A notebook did not do all of its work; the text names the cell and the error."""


class ParameterError(NotebookError):
    """The notebook cannot be run with these parameters, and running it again would not help."""


class SupersededError(NotebookError):
    """A later try replaced this one while it was still running: nothing that it does from then on counts."""


class CheckError(PulseError):
    """The data is not what the notebook expects."""


class TerminatedError(BaseException):
    """SIGTERM as an exception. Like KeyboardInterrupt, it must not be caught by handlers of ordinary errors."""
