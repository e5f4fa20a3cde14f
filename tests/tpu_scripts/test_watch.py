"""From nothing to results, through all that the cloud does to a slice on the way."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.tpu_scripts.conftest import FINISH, KINDS, RUN, Cloud

pytestmark = pytest.mark.system


@pytest.mark.parametrize("kind", KINDS)
def test_study_watched_from_nothing_leaves_its_results_and_no_slice(
    cloud: Cloud, kind: str
) -> None:
    ended = cloud.run("watch.sh", "--", "--seeds", "[0, 1]", **KINDS[kind])
    assert ended.status == 0, ended.err
    # What the study left is here: manifest, result and logs, and nothing that only a run needs.
    assert (cloud.work / "runs/kd/study.json").read_text() == "arms: {scratch: {}}\n"
    assert (cloud.work / "runs/kd/runs/part1/result.json").exists()
    assert not list((cloud.work / "runs/kd").rglob("checkpoints"))
    assert not (cloud.work / "runs/kd/data").exists()
    assert list((cloud.work / "runs/kd.tpu/kd/logs").glob("*.log"))
    # Nothing that costs money is left.
    assert cloud.slices == []
    assert kind == "queued" or (cloud.world / "made.json").read_text() == "[]"
    assert "kd is deleted" in ended.err
    assert ended.out == ""
    # The command's own words come behind those that place the study on the slice.
    (start,) = cloud.starts()
    directory = ["--train.checkpoint.directory", "gs://a-bucket/kd"]
    assert start["words"] == [
        "compare",
        "recipe.yaml",
        "--out",
        "out",
        *directory,
        "--seeds",
        "[0, 1]",
    ]
    assert start["distributed"] == "1"


def test_every_worker_of_a_slice_is_set_up_and_started(cloud: Cloud) -> None:
    ended = cloud.run("watch.sh", ACCELERATOR="v5litepod-16")
    assert ended.status == 0, ended.err
    # Four machines, each with one start.
    assert [len(cloud.starts(worker)) for worker in range(4)] == [1, 1, 1, 1]


def test_request_with_no_capacity_is_waited_for(cloud: Cloud) -> None:
    cloud.fates(["WAITING_FOR_RESOURCES", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
    ended = cloud.run("watch.sh")
    assert ended.status == 0, ended.err
    # One request, looked at until it is there.
    assert ended.err.count("kd: WAITING_FOR_RESOURCES") == 2
    assert cloud.called("queued-resources create") == 1


def test_request_that_failed_for_capacity_is_made_again(cloud: Cloud) -> None:
    cloud.faults(
        {
            "command": "queued-resources create",
            "says": 'ERROR: (gcloud) There is no more capacity in the zone "x"',
        }
    )
    cloud.fates(["WAITING_FOR_RESOURCES", "FAILED:no capacity"], ["ACTIVE"])
    ended = cloud.run("watch.sh")
    assert ended.status == 0, ended.err
    assert "no more capacity" in ended.err
    assert "kd: FAILED: no capacity; deleting it, to ask again" in ended.err
    # The first request is refused, the second fails, and the third is granted.
    assert cloud.called("queued-resources create") == 3


def test_waiting_ends_at_its_hours_and_deletes_the_request(cloud: Cloud) -> None:
    cloud.fates(["WAITING_FOR_RESOURCES"])
    ended = cloud.run("watch.sh", WAIT_HOURS="0.0003")
    assert ended.status == 75
    assert "no capacity for v5litepod-8 in us-west4-a within 0.0003 hours" in ended.err
    # Neither a slice nor a request is left waiting.
    assert cloud.slices == []
    assert cloud.starts() == []


@pytest.mark.parametrize(("lost", "spot"), [("SUSPENDED", 1), ("PREEMPTED", 0)])
def test_preempted_slice_is_made_again_and_the_study_goes_on(
    cloud: Cloud, lost: str, spot: int
) -> None:
    cloud.fates([*["ACTIVE"] * 4, lost], ["ACTIVE"])
    cloud.kdjax(RUN, FINISH)
    ended = cloud.run("watch.sh", SPOT=spot)
    assert ended.status == 0, ended.err
    assert f"kd is lost: {lost}" in ended.err
    assert cloud.called("queued-resources create") == 2
    assert (cloud.called("--spot") == 2) == bool(spot)
    # The second start goes on from the first one's checkpoint, with the same command.
    first, second = cloud.starts()
    assert first["step"] == 0 < second["step"]
    assert first["words"] == second["words"]
    assert cloud.slices == []


def test_lost_group_is_made_again(cloud: Cloud) -> None:
    cloud.fates([*["ACTIVE"] * 4, "TERMINATED"], ["ACTIVE"])
    cloud.kdjax(RUN, FINISH)
    ended = cloud.run("watch.sh", ACCELERATOR="tpu7x-16", SPOT=1)
    assert ended.status == 0, ended.err
    assert "kd is lost: kd-x TERMINATED" in ended.err
    assert cloud.called("managed create") == 2
    assert [start["step"] > 0 for start in cloud.starts()] == [False, True]
    assert cloud.called("--provisioning-model=SPOT") == 2
    assert cloud.slices == []


def test_worker_that_dies_takes_the_slice_with_it(cloud: Cloud) -> None:
    # The worker cannot be reached while its first slice is there.
    dead = "ERROR: (gcloud.compute.tpus.tpu-vm.ssh) [/usr/bin/ssh] exited with return code [255]."
    cloud.faults(
        {
            "command": "tpu-vm ssh .*--worker=1 .*status",
            "says": dead,
            "status": 255,
            "times": 99,
            "slice": 1,
        }
    )
    cloud.kdjax(RUN, FINISH)
    ended = cloud.run("watch.sh", ACCELERATOR="v5p-16")
    assert ended.status == 0, ended.err
    assert "worker 1 cannot be reached" in ended.err
    assert "out of reach 2 times; deleting kd" in ended.err
    # Both workers start again, on another slice.
    assert cloud.called("queued-resources create") == 2
    assert len(cloud.starts(1)) == 2


def test_job_killed_on_one_worker_is_started_again_on_all(cloud: Cloud) -> None:
    cloud.kdjax({"0": RUN, "1": {"do": "exit", "status": 137, "says": "Killed"}}, FINISH)
    ended = cloud.run("watch.sh", ACCELERATOR="v5p-16")
    assert ended.status == 0, ended.err
    assert "worker 1 ended with status 137: Killed; restart 1 of 3" in ended.err
    # The healthy worker is stopped and started again with the other, on the same slice.
    assert [len(cloud.starts(worker)) for worker in (0, 1)] == [2, 2]
    assert cloud.called("queued-resources create") == 1
    assert cloud.starts()[1]["step"] > 0


def test_restarts_are_bounded_where_a_job_fails_each_time(cloud: Cloud) -> None:
    cloud.kdjax({"do": "exit", "status": 1, "says": "Traceback"})
    ended = cloud.run("watch.sh", RESTARTS=2)
    assert ended.status == 1
    # One start, and two restarts.
    assert len(cloud.starts()) == 3
    assert (
        "given up after 2 restarts: worker 0 ended with status 1: Traceback; logs are in"
        in ended.err
    )
    assert cloud.slices == []


def test_study_refused_as_bad_input_ends_the_watch_with_its_line(cloud: Cloud) -> None:
    says = "kdjax: train.batch_size is 7, expected a multiple of 8"
    cloud.kdjax({"do": "exit", "status": 2, "says": says})
    ended = cloud.run("watch.sh")
    assert ended.status == 2
    # Trying again would say the same.
    assert len(cloud.starts()) == 1
    assert ended.err.splitlines()[-1].startswith("watch.sh: ")
    assert says in ended.err.splitlines()[-1]
    assert cloud.slices == []


def test_workers_that_do_not_find_one_another_are_started_again(cloud: Cloud) -> None:
    says = (
        "kdjax: KDJAX_DISTRIBUTED is '1': the other processes cannot be joined (DEADLINE_EXCEEDED)"
    )
    cloud.kdjax(
        {"0": {"do": "exit", "status": 2, "says": says}, "1": {"do": "exit", "status": 1}}, FINISH
    )
    ended = cloud.run("watch.sh", ACCELERATOR="v5p-16")
    assert ended.status == 0, ended.err
    # Which worker says so, and how the other one ends, makes no difference.
    assert "restart 1 of 3" in ended.err
    assert len(cloud.starts(1)) == 2


def test_kdjax_told_to_stop_goes_on_without_counting(cloud: Cloud) -> None:
    stopped = {"do": "exit", "status": 75, "says": "saved"}
    cloud.kdjax(stopped, stopped, FINISH)
    ended = cloud.run("watch.sh", RESTARTS=0)
    # Being told to stop is no failure, so no restart is used up.
    assert ended.status == 0, ended.err
    assert len(cloud.starts()) == 3


def test_ssh_refused_at_first_is_tried_again(cloud: Cloud) -> None:
    refused = "ssh: connect to host 10.0.0.1 port 22: Connection refused"
    cloud.faults({"command": "tpu-vm ssh", "says": refused, "status": 255, "times": 2})
    ended = cloud.run("watch.sh")
    # The second attempt's answer is refused as well, and the third is taken.
    assert ended.status == 0, ended.err
    assert f"{refused} (attempt 2 of 3" in ended.err
    assert cloud.called("queued-resources create") == 1


@pytest.mark.parametrize(
    ("fault", "fate"),
    [
        (
            "ERROR: (gcloud) RESOURCE_EXHAUSTED: Quota limit 'TPUV5sPreemptible' has been "
            "exceeded. Limit: 0",
            "ACTIVE",
        ),
        ("ERROR: (gcloud) PERMISSION_DENIED: Permission 'tpu.nodes.create' denied", "ACTIVE"),
        (
            "ERROR: (gcloud.compute) unrecognized arguments: --spot (did you mean '--sport'?)",
            "ACTIVE",
        ),
        ("", "FAILED:Quota limit 'TPUV5s' has been exceeded"),
    ],
)
def test_watch_of_what_waiting_cannot_help_ends(cloud: Cloud, fault: str, fate: str) -> None:
    cloud.faults({"command": "queued-resources create", "says": fault, "times": int(bool(fault))})
    cloud.fates([fate])
    ended = cloud.run("watch.sh")
    assert ended.status == 1
    assert cloud.called("queued-resources create") == 1
    last = ended.err.splitlines()[-1]
    assert last.startswith("watch.sh: kd was refused: ")
    assert (fault or "Quota limit") in last
    assert cloud.slices == []


def test_group_that_no_quota_allows_ends_the_watch(cloud: Cloud) -> None:
    cloud.fates(
        [
            "WAITING_FOR_RESOURCES:ZONE_RESOURCE_POOL_EXHAUSTED",
            "WAITING_FOR_RESOURCES:QUOTA_EXCEEDED",
        ]
    )
    ended = cloud.run("watch.sh", ACCELERATOR="tpu7x-16")
    assert ended.status == 1
    assert "kd-x not created: ZONE_RESOURCE_POOL_EXHAUSTED" in ended.err
    assert (
        ended.err.splitlines()[-1] == "watch.sh: kd was refused: kd-x not created: QUOTA_EXCEEDED"
    )
    assert cloud.slices == []
    assert (cloud.world / "made.json").read_text() == "[]"


def test_cloud_that_does_not_answer_for_a_while_is_asked_again(cloud: Cloud) -> None:
    cloud.faults(
        {
            "command": "queued-resources describe",
            "says": "ERROR: (gcloud) 503 UNAVAILABLE",
            "times": 8,
        }
    )
    ended = cloud.run("watch.sh")
    assert ended.status == 0, ended.err
    assert ended.err.count("503 UNAVAILABLE; looking again") == 2


def test_account_that_has_expired_ends_the_watch(cloud: Cloud) -> None:
    says = "ERROR: (gcloud) You do not currently have an active account selected."
    cloud.faults({"command": "queued-resources describe", "says": says, "times": 9})
    ended = cloud.run("watch.sh")
    assert ended.status == 1
    assert f"watch.sh: the state of kd cannot be found out: {says}" in ended.err


def test_group_refused_halfway_leaves_nothing(cloud: Cloud) -> None:
    cloud.faults(
        {"command": "managed create", "says": "ERROR: (gcloud) Quota 'TPUS' exceeded.", "times": 9}
    )
    ended = cloud.run("watch.sh", ACCELERATOR="tpu7x-16")
    assert ended.status == 1
    assert ended.err.endswith("watch.sh: kd was refused: ERROR: (gcloud) Quota 'TPUS' exceeded.\n")
    assert cloud.slices == []
    assert (cloud.world / "made.json").read_text() == "[]"


def test_study_at_its_last_hour_is_saved_and_goes_on_later(cloud: Cloud) -> None:
    cloud.kdjax(RUN)
    ended = cloud.run("watch.sh", MAX_HOURS="0.0006")
    assert ended.status == 75
    assert "stopped after MAX_HOURS=0.0006 hours" in ended.err
    assert int((cloud.bucket("kd") / "runs/part1/checkpoints/step").read_text()) > 0
    assert cloud.slices == []
    again = cloud.run("watch.sh", MAX_HOURS="0.0006")  # what was spent is remembered
    assert again.status == 75
    assert cloud.called("queued-resources create") == 1
    cloud.kdjax(FINISH)
    more = cloud.run("watch.sh", MAX_HOURS="1")
    assert more.status == 0
    assert cloud.starts()[-1]["step"] > 0


def test_watcher_that_ends_is_taken_over(cloud: Cloud) -> None:
    cloud.kdjax({"do": "exit", "status": 1, "says": "x"})
    assert cloud.run("watch.sh", KEEP=1, RESTARTS=0).status == 1
    assert cloud.slices == ["kd"]
    cloud.kdjax(FINISH)
    ended = cloud.run("watch.sh")
    assert ended.status == 0, ended.err
    assert cloud.called("queued-resources create") == 1
    assert len(cloud.starts()) == 2
    assert cloud.slices == []


def test_watcher_told_to_stop_leaves_the_study_running(cloud: Cloud) -> None:
    cloud.kdjax(RUN)
    watcher = cloud.start("watch.sh")
    while not cloud.starts():
        assert watcher.poll() is None
    watcher.send_signal(signal.SIGTERM)
    _, stderr = watcher.communicate(timeout=60)
    assert watcher.returncode == 143
    assert cloud.slices == ["kd"]
    assert "kd may still be there: the same command goes on, teardown.sh deletes it" in stderr
    assert cloud.run("teardown.sh").status == 0


def test_kept_slice_is_left_until_it_is_torn_down(cloud: Cloud) -> None:
    ended = cloud.run("watch.sh", KEEP=1)
    assert ended.status == 0
    assert cloud.slices == ["kd"]
    assert "KEEP=1: kd is left and costs money until teardown.sh" in ended.err
    assert cloud.run("teardown.sh").status == 0
    assert cloud.slices == []


def test_results_that_cannot_be_fetched_do_not_keep_the_slice(cloud: Cloud) -> None:
    cloud.faults(
        {
            "command": "storage rsync .*gs://a-bucket/kd runs",
            "says": "ERROR: (gcloud) 503",
            "times": 9,
        }
    )
    ended = cloud.run("watch.sh")
    assert ended.status == 1
    assert "fetching failed, fetch.sh tries again: ERROR: (gcloud) 503" in ended.err
    assert cloud.slices == []
    cloud.faults()
    assert cloud.run("fetch.sh").status == 0
    assert (cloud.work / "runs/kd/report.html").exists()


def test_slice_that_cannot_be_deleted_is_named_as_a_cost(cloud: Cloud) -> None:
    cloud.faults(
        {"command": "queued-resources delete", "says": "ERROR: (gcloud) INTERNAL", "times": 9}
    )
    ended = cloud.run("watch.sh")
    assert ended.status == 1
    assert "watch.sh: kd cannot be deleted and costs money: ERROR: (gcloud) INTERNAL" in ended.err


def test_study_on_several_slices_has_its_parts_merged(cloud: Cloud, tmp_path: Path) -> None:
    merged = cloud.world / "bin" / "kdjax"
    merged.write_text('#!/bin/sh\necho "$@" >merged\n')
    merged.chmod(0o755)
    ended = cloud.run("spread.sh", "PARTS=2", "--", "--seeds", "[0]")
    assert ended.status == 0, ended.err
    for part in (1, 2):
        (start,) = cloud.starts(part=part)
        assert start["words"][:6] == ["train", "recipe.yaml", "--out", "out", "--part", f"{part}/2"]
        assert start["words"][6:] == [
            "--train.checkpoint.directory",
            f"gs://a-bucket/kd.part-{part}-of-2",
            "--seeds",
            "[0]",
        ]
        assert (cloud.work / f"runs/kd.part-{part}-of-2/runs/part{part}/result.json").exists()
    assert (
        cloud.work / "merged"
    ).read_text() == "merge runs/kd.part-1-of-2 runs/kd.part-2-of-2 --out runs/kd\n"
    assert cloud.slices == []


def test_dry_run_of_several_slices_is_that_of_each(cloud: Cloud) -> None:
    ended = cloud.run("spread.sh", "--dry-run", "PARTS=2")
    assert ended.status == 0
    assert cloud.calls == []
    assert not (cloud.work / "runs").exists()
    created = [words[5] for words in ended.commands if words[3:5] == ["queued-resources", "create"]]
    assert created == ["kd-1", "kd-2"]
    assert ended.commands[-1] == [
        "kdjax",
        "merge",
        *(f"runs/kd.part-{n}-of-2" for n in (1, 2)),
        "--out",
        "runs/kd",
    ]


def test_failed_part_of_several_is_named(cloud: Cloud) -> None:
    cloud.faults(
        {
            "command": "queued-resources create kd-2",
            "says": "ERROR: (gcloud) Quota limit exceeded",
            "times": 9,
        }
    )
    ended = cloud.run("spread.sh", "PARTS=2")
    assert ended.status == 1
    assert "spread.sh: not all of 2 parts are finished" in ended.err
    assert "[2] watch.sh: kd-2 was refused" in ended.err
    assert cloud.slices == []
