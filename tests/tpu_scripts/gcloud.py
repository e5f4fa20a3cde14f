"""A gcloud that is none: put first on PATH, it keeps machines as directories and does what scripts
ask on them, here.

Its world is $FAKE_CLOUD:

    calls.json      every call but those of the machines slices/NAME/    the n-th look at it shows
    the n-th state of its fate; workers/I/ are the homes of its machines bucket/         gs://
    fates.json      for each slice to come, the states it will go through, a look each; the last one
    stays, and so does
                    "STATE until PATTERN" while no file of the world matches
    faults.json     calls that fail: {"command": a pattern, "says": stderr, "status": 1, "times": 1,
                    "slice": N}, the last for a fault that is there only while N slices were made

Only flags that the real commands have are taken. It starts a thousand times in the tests, so it
imports next to
nothing: json, pathlib and re would take twice as long as the interpreter itself.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

WORLD = os.environ["FAKE_CLOUD"]
WIDE = {"project", "quiet", "format", "flatten"}
HOSTS = {"v5litepod-8": 1, "v5litepod-16": 4, "v6e-8": 1, "v5p-8": 1, "v5p-16": 2}
QUEUED = ("compute", "tpus", "queued-resources")
GROUP = ("compute", "instance-groups", "managed")
TAKES: dict[tuple[str, ...], set[str]] = {
    (*QUEUED, "create"): {
        *(
            "zone",
            "node-id",
            "accelerator-type",
            "runtime-version",
            "spot",
            "network",
            "subnetwork",
        ),
        *("service-account", "internal-ips"),
    },
    (*QUEUED, "describe"): {"zone"},
    (*QUEUED, "delete"): {"zone", "force"},
    ("compute", "tpus", "tpu-vm", "describe"): {"zone"},
    ("compute", "tpus", "tpu-vm", "ssh"): {"zone", "worker", "command", "internal-ip"},
    ("compute", "ssh"): {"zone", "command", "internal-ip"},
    ("compute", "resource-policies", "create", "workload-policy"): {
        "region",
        "type",
        "accelerator-topology",
    },
    ("compute", "resource-policies", "delete"): {"region"},
    ("compute", "instance-templates", "create"): {
        *(
            "machine-type",
            "image-family",
            "image-project",
            "boot-disk-type",
            "boot-disk-size",
            "maintenance-policy",
        ),
        *(
            "instance-termination-action",
            "max-run-duration",
            "scopes",
            "provisioning-model",
            "network",
            "region",
        ),
        *("subnet", "service-account", "no-address"),
    },
    ("compute", "instance-templates", "delete"): set(),
    (*GROUP, "create"): {
        *(
            "zone",
            "size",
            "template",
            "target-size-policy-mode",
            "default-action-on-vm-failure",
            "workload-policy",
        ),
    },
    (*GROUP, "list-instances"): {"zone"},
    (*GROUP, "delete"): {"zone"},
    ("storage", "cp"): set(),
    ("storage", "ls"): set(),
    ("storage", "rsync"): {"recursive", "exclude"},
}


def fail(text: str, status: int = 1) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(status)


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def loads(text: str) -> Any:
    """Read JSON of nothing but lists, objects, texts and whole numbers, which is Python too."""
    return eval(text, {"__builtins__": {}})


def dumps(value: Any) -> str:
    from _json import encode_basestring_ascii as quoted

    if isinstance(value, dict):
        # The module json takes long to import, and these few types are all there is.
        return (
            "{"
            + ", ".join(f"{quoted(name)}: {dumps(inner)}" for name, inner in value.items())
            + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(dumps, value)) + "]"
    return quoted(value) if isinstance(value, str) else str(int(value))


class stored_json:
    """A JSON file of the world, as it is and as the block leaves it; others wait."""

    def __init__(self, name: str, empty: Any) -> None:
        import fcntl

        self.path = f"{WORLD}/{name}.json"
        self.value = empty
        # A lock beside the file, as the file itself is written anew.
        self.lock = os.open(f"{WORLD}/{name}.lock", os.O_WRONLY | os.O_CREAT)
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def __enter__(self) -> Any:
        if os.path.exists(self.path):
            self.value = loads(read(self.path))
        return self.value

    def __exit__(self, *_: object) -> None:
        write(self.path, dumps(self.value))
        os.close(self.lock)


def remove(path: str) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def copy_file(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
    with open(source, "rb") as file, open(target, "wb") as copied:
        copied.write(file.read())


class Slice:
    """A queued resource or an instance group, and its machines."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.place = f"{WORLD}/slices/{name}"

    @property
    def there(self) -> bool:
        return os.path.exists(self.place)

    def make(self, hosts: int) -> None:
        with stored_json("fates", []) as fates:
            # A slice without a fate of its own is there at once.
            fate = fates.pop(0) if fates else ["ACTIVE"]
        counter = f"{WORLD}/made_slices"
        write(counter, str(int(read(counter) if os.path.exists(counter) else 0) + 1))
        os.makedirs(self.place)
        for name, value in (("fate.json", dumps(fate)), ("hosts", str(hosts)), ("looks", "0")):
            write(f"{self.place}/{name}", value)

    @property
    def hosts(self) -> int:
        return int(read(f"{self.place}/hosts"))

    def home(self, worker: int) -> str:
        return f"{self.place}/workers/{worker}"

    def look(self) -> str:
        """Return what a look at it shows; machines of a slice that is lost lose their processes."""
        fate = loads(read(f"{self.place}/fate.json"))
        looks = int(read(f"{self.place}/looks"))
        state, _, pattern = fate[min(looks, len(fate) - 1)].partition(" until ")
        # A state that waits for a file stays until the file is there.
        if not pattern or matches(pattern):
            write(f"{self.place}/looks", str(looks + 1))
        write(f"{self.place}/shown", state)
        # Any other state means that the machines are gone.
        if state.partition(":")[0] not in ("ACTIVE", "WAITING_FOR_RESOURCES", "PROVISIONING"):
            self.power_off()
        return str(state)

    def power_off(self) -> None:
        """Send SIGTERM to everything on its machines, allow time to save, send SIGKILL."""
        import time

        # Jobs run as groups of processes, so that nothing they started is missed.
        groups = []
        workers = f"{self.place}/workers"
        for worker in os.listdir(workers) if os.path.isdir(workers) else ():
            try:
                groups.append(os.getpgid(int(read(f"{workers}/{worker}/kdjax/job.pid"))))
                os.killpg(groups[-1], 15)
            except (FileNotFoundError, ProcessLookupError):
                continue
        # What saves within five seconds ends by itself.
        deadline = time.monotonic() + 5
        while groups and time.monotonic() < deadline:
            running = groups_running()
            groups = [group for group in groups if group in running]
            time.sleep(0.02)
        for group in groups:
            os.killpg(group, 9)
        remove(workers)


def matches(pattern: str) -> bool:
    """Return whether there is a file of the world of this pattern."""
    import glob

    return bool(glob.glob(f"{WORLD}/{pattern}"))


def groups_running() -> set[int]:
    """Return the groups of processes that have not ended."""
    groups = set()
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = read(f"/proc/{number}/stat").rpartition(")")[2].split()
        except OSError:
            continue
        # A zombie has ended and waits only for whoever started it.
        if fields[0] != "Z":
            groups.add(int(fields[2]))
    return groups


def in_world(path: str) -> str:
    return f"{WORLD}/bucket/{path[len('gs://') :]}" if path.startswith("gs://") else path


def ssh(home: str, command: str, worker: int) -> NoReturn:
    """Run a command on a machine: a login shell in its home."""
    # A connection comes up in a home of its own, with no more than a login has.
    os.makedirs(home, exist_ok=True)
    environment = {
        "HOME": home,
        "PATH": f"{WORLD}/bin:/usr/local/bin:/usr/bin:/bin",
        "FAKE_CLOUD": WORLD,
        "FAKE_WORKER": str(worker),
    }
    os.chdir(home)
    os.closerange(3, 256)  # a connection has no more than stdin, stdout and stderr
    os.execve("/bin/bash", ["bash", "-c", command], environment)


def create_queued(words: list[str], flags: dict[str, str]) -> None:
    if Slice(words[0]).there:
        fail(
            "ERROR: (gcloud.compute.tpus.queued-resources.create) ALREADY_EXISTS: Resource "
            f"{words[0]} already exists"
        )
    Slice(words[0]).make(HOSTS[flags["accelerator-type"]])


def describe_queued(words: list[str], flags: dict[str, str]) -> None:
    tpu_slice = Slice(words[0])
    if not tpu_slice.there:
        fail("ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource not found")
    state, _, error = tpu_slice.look().partition(":")
    # The request itself does not see that a machine is being taken away.
    print("ACTIVE" if state in ("PREEMPTED", "REPAIRING") else state, error, sep="\t")


def describe_node(words: list[str], flags: dict[str, str]) -> None:
    tpu_slice = Slice(words[0])
    state = read(f"{tpu_slice.place}/shown")  # the look at the request shows the same moment
    for worker in range(tpu_slice.hosts):
        print("READY" if state == "ACTIVE" else state, f"10.0.0.{worker}", sep="\t")


def delete_queued(words: list[str], flags: dict[str, str]) -> None:
    tpu_slice = Slice(words[0])
    if not tpu_slice.there:
        fail("ERROR: (gcloud.compute.tpus.queued-resources.delete) NOT_FOUND: Resource not found")
    tpu_slice.power_off()
    remove(tpu_slice.place)


def ssh_queued(words: list[str], flags: dict[str, str]) -> None:
    worker = int(flags["worker"])
    ssh(Slice(words[0]).home(worker), flags["command"], worker)


def create_group(words: list[str], flags: dict[str, str]) -> None:
    with stored_json("made", []) as created:
        # As in Google's cloud, a group needs a template that exists.
        if f"template {flags['template']}" not in created:
            fail("ERROR: (gcloud.compute.instance-groups.managed.create) template was not found")
    Slice(words[0]).make(int(flags["size"]))


def list_instances(words: list[str], flags: dict[str, str]) -> None:
    tpu_slice = Slice(words[0])
    if not tpu_slice.there:
        fail(
            "ERROR: (gcloud.compute.instance-groups.managed) Could not fetch resource: "
            f"{words[0]} was not found"
        )
    state, _, error = tpu_slice.look().partition(":")
    shown = {"ACTIVE": "RUNNING", "WAITING_FOR_RESOURCES": "", "PROVISIONING": "STAGING"}.get(
        state, "TERMINATED"
    )
    for worker in range(tpu_slice.hosts):
        print(f"{words[0]}-{'wxyz'[worker]}", shown, error, sep="|")


def delete_group(words: list[str], flags: dict[str, str]) -> None:
    delete_queued(words, flags)


def ssh_group(words: list[str], flags: dict[str, str]) -> None:
    name, _, letter = words[0].rpartition("-")
    worker = "wxyz".index(letter)
    ssh(Slice(name).home(worker), flags["command"], worker)


def maker(kind: str) -> Callable[[list[str], dict[str, str]], None]:
    def make(words: list[str], flags: dict[str, str]) -> None:
        with stored_json("made", []) as created:
            if f"{kind} {words[0]}" in created:
                fail(
                    f"ERROR: (gcloud.compute) Could not create resource: {kind} {words[0]} "
                    "already exists"
                )
            created.append(f"{kind} {words[0]}")

    return make


def unmaker(kind: str) -> Callable[[list[str], dict[str, str]], None]:
    def unmake(words: list[str], flags: dict[str, str]) -> None:
        with stored_json("made", []) as created:
            if f"{kind} {words[0]}" not in created:
                fail(
                    f"ERROR: (gcloud.compute) Could not fetch resource: {kind} {words[0]} was not "
                    "found"
                )
            created.remove(f"{kind} {words[0]}")

    return unmake


def copy(words: list[str], flags: dict[str, str]) -> None:
    source = in_world(words[0])
    target = in_world(words[1])
    if not os.path.isfile(source):
        fail(
            "ERROR: (gcloud.storage.cp) The following URLs matched no objects or "
            f"files:\n-{words[0]}"
        )
    copy_file(source, target)


def ls(words: list[str], flags: dict[str, str]) -> None:
    if not os.path.exists(in_world(words[0])):
        fail("ERROR: (gcloud.storage.ls) One or more URLs matched no objects.")


def rsync(words: list[str], flags: dict[str, str]) -> None:
    source = in_world(words[0])
    target = in_world(words[1])
    if not os.path.isdir(source):
        fail(f"ERROR: (gcloud.storage.rsync) Did not find existing container at: {words[0]}")
    if not words[1].startswith("gs://") and not os.path.isdir(target):
        fail(f"ERROR: (gcloud.storage.rsync) Did not find existing container at: {words[1]}")
    for place, _, names in os.walk(source):
        for name in names:
            path = os.path.relpath(f"{place}/{name}", source)
            if not ("exclude" in flags and matched(flags["exclude"], path)):
                copy_file(f"{source}/{path}", f"{target}/{path}")


def matched(pattern: str, text: str) -> bool:
    """Return whether a text begins with what a regular expression describes."""
    import re

    return bool(re.match(pattern, text))


DOES: dict[tuple[str, ...], Callable[[list[str], dict[str, str]], None]] = {
    (*QUEUED, "create"): create_queued,
    (*QUEUED, "describe"): describe_queued,
    (*QUEUED, "delete"): delete_queued,
    ("compute", "tpus", "tpu-vm", "describe"): describe_node,
    ("compute", "tpus", "tpu-vm", "ssh"): ssh_queued,
    ("compute", "ssh"): ssh_group,
    ("compute", "resource-policies", "create", "workload-policy"): maker("policy"),
    ("compute", "resource-policies", "delete"): unmaker("policy"),
    ("compute", "instance-templates", "create"): maker("template"),
    ("compute", "instance-templates", "delete"): unmaker("template"),
    (*GROUP, "create"): create_group,
    (*GROUP, "list-instances"): list_instances,
    (*GROUP, "delete"): delete_group,
    ("storage", "cp"): copy,
    ("storage", "ls"): ls,
    ("storage", "rsync"): rsync,
}


def _meant(fault: dict[str, Any], line: str, count: int) -> bool:
    return bool(
        fault["times"]
        and fault.get("slice") in (None, count)
        and matched(f".*{fault['command']}", line)
    )


def main(arguments: list[str]) -> None:
    line = " ".join(arguments)
    # Calls of the machines themselves are not the scripts'.
    if "FAKE_WORKER" not in os.environ:
        with stored_json("calls", []) as calls:
            calls.append(["gcloud", *arguments])
    # A fault that fits counts down, and the call fails as it says.
    with stored_json("faults", []) as faults:
        counter = f"{WORLD}/made_slices"
        count = int(read(counter)) if os.path.exists(counter) else 0
        fault = next((f for f in faults if _meant(f, line, count)), None)
        if fault is not None:
            fault["times"] -= 1
    if fault is not None:
        fail(fault["says"], fault.get("status", 1))
    command = next(known for known in DOES if tuple(arguments[: len(known)]) == known)
    # Words and flags are told apart, and a flag that the real command lacks is refused.
    words = []
    flags = {}
    for word in arguments[len(command) :]:
        if not word.startswith("--"):
            words.append(word)
            continue
        name, _, value = word[2:].partition("=")
        if name not in TAKES[command] | WIDE:
            fail(f"ERROR: (gcloud.{'.'.join(command)}) unrecognized arguments: {word}", 2)
        flags[name] = value
    DOES[command](words, flags)


main(sys.argv[1:])
