"""What is missing is named with what to do, and nothing keeps the command waiting."""

from __future__ import annotations

import json
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdjax.doctor import devices, examine, hub, machine, software
from kdjax.doctor.finding import Finding
from tests.study.conftest import kdjax
from tests.support import small_study

FOUND = 'print(\'{"platform": "cpu", "kind": "cpu", "count": 8, "memory": null}\')'
"""Program that finds eight CPU devices at once."""


def states(findings: Any) -> dict[str, str]:
    return {finding.subject: finding.state for finding in findings}


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions of the packages that seem to be installed, to change."""
    installed = {"jax": "0.10.2", "jaxlib": "0.10.2", "numpy": "2.1", "flax": "0.12.6"}
    required = {
        "kdjax": [
            "jax>=0.10.2",
            "numpy>=2.0",
            'kdjax[gcs]; extra == "tpu"',
            'jax[tpu]>=0.10.2; extra == "tpu"',
            'gcsfs>=2026.2; extra == "gcs"',
        ],
        "jax": ["jaxlib", 'libtpu==0.0.42; extra == "tpu"'],
    }

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(software.metadata, "version", version)
    monkeypatch.setattr(software.metadata, "requires", lambda name: required.get(name, []))
    return installed


def test_required_packages_are_told_by_name_and_version(packages: dict[str, str]) -> None:
    (whole,) = software.requirements()
    assert (whole.state, whole.found) == ("ok", "all 2 that kdjax requires")
    packages["numpy"] = "1.26"
    del packages["jax"]
    jax, numpy = software.requirements()
    assert str(jax) == ("problem  jax                 is not installed; pip install 'jax>=0.10.2'")
    assert (numpy.state, numpy.found) == ("problem", "is 1.26, expected >=2.0")


def test_extras_are_looked_for_through_extras_of_other_packages(packages: dict[str, str]) -> None:
    packages["gcsfs"] = "2026.3"
    by_subject = {finding.subject: finding for finding in software.extras()}
    assert by_subject.keys() == {f"extra {name}" for name in software.EXTRAS}
    assert by_subject["extra gcs"].state == "ok"
    # libtpu is what jax[tpu] asks for.
    tpu = by_subject["extra tpu"]
    assert (tpu.state, tpu.found) == ("note", "libtpu is not installed")
    assert tpu.advice.endswith("pip install 'kdjax[tpu]'")
    packages["libtpu"] = "0.0.42"
    assert states(software.extras())["extra tpu"] == "ok"


def test_each_extra_of_users_is_known_with_its_purpose() -> None:
    names = metadata.metadata("kdjax").get_all("Provides-Extra") or []
    for_developers = {"test", "parity", "lint", "dev", "docs", "bench", "demo", "page"}
    assert software.EXTRAS.keys() | for_developers >= set(names)


def test_version_of_a_plugin_that_is_not_jaxs_is_a_problem(packages: dict[str, str]) -> None:
    assert states(devices.versions()) == {"JAX": "ok"}
    packages["jax-cuda12-plugin"] = "0.9.0"
    plugin, _ = devices.versions()
    assert plugin == Finding(
        "jax-cuda12-plugin",
        "problem",
        "is 0.9.0 beside jax 0.10.2",
        "pip install jax-cuda12-plugin==0.10.2",
    )


def test_devices_are_asked_within_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(devices, "_GPU_FILES", ())
    monkeypatch.setattr(devices, "_TPU_FILES", ())
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    (found,) = devices.devices(FOUND)
    assert (found.state, found.found) == ("ok", "8 x cpu (cpu)")
    begun = time.monotonic()
    (waiting,) = devices.devices("import time; time.sleep(60)", seconds=0.5)
    assert time.monotonic() - begun < 30
    assert (waiting.state, waiting.found) == ("problem", "JAX does not start within 0.5 s")
    (failed,) = devices.devices("raise RuntimeError('no such chip')")
    assert failed.found == "JAX does not start: RuntimeError: no such chip"


def test_accelerator_that_jax_passes_over_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chip = tmp_path / "accel0"
    chip.touch()
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(devices, "_GPU_FILES", ())
    monkeypatch.setattr(devices, "_TPU_FILES", (str(chip),))
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    _, passed_over = devices.devices(FOUND)
    assert (passed_over.state, passed_over.advice) == ("problem", "pip install 'kdjax[tpu]'")
    # Who has chosen the CPU is only reminded of it.
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    _, chosen = devices.devices(FOUND)
    assert chosen.state == "note"


def test_place_for_results_that_cannot_be_written_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert states(machine.disks(tmp_path / "new" / "runs"))["--out"] == "ok"
    assert not (tmp_path / "new").exists()  # it only looks
    assert states(machine.disks(tmp_path / "file" / "runs"))["--out"] == "problem"
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
    out, *_ = machine.disks(tmp_path)
    assert (out.state, out.advice) == ("problem", "make room: 1 GiB or more")


def test_hub_that_does_not_answer_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class Waiting(huggingface_hub.HfApi):
        def whoami(self, *arguments: Any, **options: Any) -> Any:
            time.sleep(30)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    monkeypatch.setattr(huggingface_hub, "HfApi", Waiting)
    begun = time.monotonic()
    finding = hub.hub(seconds=0.3)
    assert time.monotonic() - begun < 10
    assert finding.state == "note"
    assert "no answer within 0.3 s" in finding.found


def test_offline_hub_is_a_note_that_asks_nobody() -> None:
    assert hub.hub().found == "HF_HUB_OFFLINE is set"


@pytest.mark.system
def test_doctor_of_a_recipe_says_what_is_missing_and_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_study.write(tmp_path)
    monkeypatch.setattr(examine.devices, "devices", lambda: iter(()))
    monkeypatch.setattr(examine.software, "requirements", lambda: [])
    whole = kdjax("doctor", recipe, "--out", tmp_path / "out", "--json")
    findings = json.loads(whole.out)
    assert whole.status == 0, whole.err
    assert {"subject": "recipe: teacher", "state": "ok"}.items() <= findings[-1].items()
    (tmp_path / "encoder" / "model.safetensors").unlink()
    ended = kdjax("doctor", recipe)
    assert ended.status == 2
    assert ended.complaint == "kdjax: doctor: 1 problem: recipe: teacher"
    assert "problem  recipe: teacher" in ended.out
