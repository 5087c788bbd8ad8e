"""Whether timm knows an auto-augment policy, before any image is read."""

from timm.data.transforms_factory import create_transform

from wave.errors import WaveError


def check_policy(policy: str) -> None:
    """Raise :class:`WaveError` unless timm knows the auto-augment policy, such as ``rand-m9-mstd0.5-inc1``."""
    try:
        create_transform(input_size=(32, 32), is_training=True, auto_augment=policy)
    except (AssertionError, ValueError, KeyError, IndexError):
        raise WaveError(f"augment={policy!r} is not a timm policy; one that works: rand-m9-mstd0.5-inc1") from None
