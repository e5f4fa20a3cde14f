"""What a wheel has, as setuptools lists it. `make test-wheel` builds one and uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LISTING = """
import setuptools
distribution = setuptools.Distribution({"script_name": "setup.py"})
distribution.parse_config_files()
build = distribution.get_command_obj("build_py")
build.ensure_finalized()
print("\\n".join(build.get_outputs(include_bytecode=False)))
"""
"""Program that lists the files of the wheel of the working directory, and builds nothing."""


def test_wheel_has_the_package_recipes_programs_and_templates() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", LISTING],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = {str(Path(line).relative_to("build/lib")) for line in ended.stdout.splitlines()}
    # What is beside the package in a checkout lies in it.
    expected = {f"kdjax/{path.name}" for path in ROOT.glob("requirements-*.txt")}
    for directory, inside, pattern in (
        ("kdjax", "kdjax", "*.py"),
        ("kdjax/report/templates", "kdjax/report/templates", "*"),
        ("kdjax/report/scripts", "kdjax/report/scripts", "*"),
        ("configs", "kdjax/configs", "*"),
        ("examples", "kdjax/examples", "*.py"),
    ):
        for path in (ROOT / directory).rglob(pattern):
            if path.is_file() and "__pycache__" not in path.parts:
                expected.add(f"{inside}/{path.relative_to(ROOT / directory)}")
    assert listed == expected | {"kdjax/py.typed"}


def test_links_of_a_checkout_lead_to_what_a_wheel_copies() -> None:
    for name in ("configs", "examples", "requirements-demo.txt", "requirements-data.txt"):
        link = ROOT / "kdjax" / name
        assert link.is_symlink() and link.resolve() == ROOT / name
