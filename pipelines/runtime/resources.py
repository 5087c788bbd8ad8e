"""How a batch is dealt to workers."""

from wave.errors import WaveError


def check_world(batch_size: int, rank: int, world: int) -> None:
    """Raise :class:`WaveError` unless every rank gets the same number of images, at least one."""
    if not 0 <= rank < world:
        raise WaveError(f"rank={rank} is not one of {world} workers")
    if batch_size < 1 or batch_size % world:
        near = " and ".join(str(n) for n in (batch_size // world * world, (batch_size // world + 1) * world) if n > 0)
        raise WaveError(f"batch_size={batch_size} is not a multiple of {world} workers; nearest: {near}")
