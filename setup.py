"""Map the top-level folders into one import root, `conclave` (why: docs/decisions/0001-one-import-root.md)."""

from setuptools import find_packages, setup

ROOTS = ("gateway", "router", "safety", "retrieval", "moe", "kernels")
found = find_packages(include=[p for r in ROOTS for p in (r, f"{r}.*")])
setup(packages=[f"conclave.{p}" for p in found], package_dir={f"conclave.{r}": r for r in ROOTS})
