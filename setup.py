"""Where the packages lie: `trackmill.models` is the folder `models`, and so on. All else is in pyproject.toml."""

from setuptools import find_packages, setup

FOLDERS = ("jobs", "models", "pipeline", "schemas")

setup(
    packages=["trackmill", *(f"trackmill.{name}" for name in find_packages(include=[f"{each}*" for each in FOLDERS]))],
    package_dir={"trackmill": "trackmill"} | {f"trackmill.{each}": each for each in FOLDERS},
)
