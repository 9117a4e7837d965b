"""Product analytics from parameterized notebooks: what the notebooks and the DAGs share."""


class PulseError(Exception):
    """Root of the project's exceptions; its text is one sentence that says what was found and what to do."""


QUERY_MIME = "application/vnd.pulse.query+json"
"""What a statement leaves in the executed notebook: an invisible output that says which query it was."""
