"""Product analytics from parameterized notebooks: what the notebooks and the DAGs share."""


class PulseError(Exception):
    """The root of the project's exceptions; the text is one sentence that says what was found and what to do."""


QUERY_MIME = "application/vnd.pulse.query+json"
"""The type of the invisible output that a statement leaves in the executed notebook: which query it was."""
