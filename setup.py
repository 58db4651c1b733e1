"""Which folders are shipped, and under which names: `accel` is imported as `spikeloom.accel`, and so on.

The folders stay at the top level of the repository, and the wheel has one top-level name. `benchmarks` and `examples`
are importable in a checkout (an editable install) and are no part of the wheel. Everything else is in pyproject.toml.
"""

import shutil
import sys

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

SHIPPED = ("accel", "bci", "conf", "pipelines", "speech", "vision")
CHECKOUT_ONLY = ("benchmarks", "examples")


class FreshBuild(build_py):
    """Starts with an empty build folder: one that an earlier build left has modules that may be gone since."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


folders = SHIPPED + (CHECKOUT_ONLY if "editable_wheel" in sys.argv else ())
packages = find_packages(include=[pattern for folder in folders for pattern in (folder, f"{folder}.*")])
setup(
    packages=["spikeloom", *(f"spikeloom.{package}" for package in packages)],
    package_dir={f"spikeloom.{folder}": folder for folder in folders},
    cmdclass={"build_py": FreshBuild},
)
