"""The one error a person sees."""


class ClusterError(ValueError):
    """A person's mistake in one line: what was found, the rule, what to do. The command prints it and exits 2."""
