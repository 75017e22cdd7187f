"""What all callbacks of a search's driver have in common."""

from ray.tune import Callback


class DriverCallback(Callback):
    """A callback with files, screens or threads that stay in the driver."""

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        # Ray pickles its run config for a restore that this project never does.
        return object, ()
