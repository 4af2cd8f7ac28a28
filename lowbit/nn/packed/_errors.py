"""Why a layer stays as it is."""


class CannotPack(ValueError):
    """A layer has no packed form; the message is the reason."""


# Floats are compared to one unit in the last place of the largest value in question: what the
# arithmetic of the trained layer rounds away.
ULP = 2.0**-23
