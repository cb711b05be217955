"""Where the packages lie: those below lightning_prune/ are found, conf/ and recipes/ go inside it once installed."""

from setuptools import find_packages, setup

outside = {"lightning_prune.conf": "conf", "lightning_prune.recipes": "recipes"}
setup(packages=[*find_packages(include=["lightning_prune*"]), *outside], package_dir=outside)
