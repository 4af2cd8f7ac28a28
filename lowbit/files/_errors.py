"""What is wrong with a packed file, or with a model that is to become one."""


class PackedFileError(ValueError):
    """A packed file cannot be written or read; the message says why, and what to do."""
