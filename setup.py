"""The wheel: folder `wave`, installed as `wave_templates`, because Python's own audio module is called `wave` too."""

from setuptools import find_packages, setup

setup(
    package_dir={"wave_templates": "wave"},
    packages=["wave_templates", *(f"wave_templates.{name}" for name in find_packages("wave"))],
)
