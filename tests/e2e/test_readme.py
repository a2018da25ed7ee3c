"""The README's first real use: its blocks in one shell, as a reader runs them, on `paywatch sim`.

Nothing is changed but the ports, which may be taken on this machine.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from paywatch.service.documents import session_document
from support import make_session
from support.documents import ROOT, examples

README = ROOT / "README.md"
STEPS = examples(README, "bash")
PORTS = ("8480", "9000")  # of the daemon and of the receiver, in the README
TOLD = "checkout.session.paid"
END = "--- end of step"
ENDED = "--- the shell has ended"


class Shell:
    """One bash for all steps; ends at the first command that fails."""

    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self.directory = directory
        self._errors = directory / "stderr"
        with self._errors.open("wb") as errors:
            self._bash = subprocess.Popen(
                ["/bin/bash", "-eo", "pipefail"],
                cwd=directory,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

        # What runs in the background keeps the pipe open: the shell has to say that it ended.
        self._write(f"trap \"echo '{ENDED}'\" EXIT\n")

    def run(self, step: str) -> str:
        """Run a step to its end and give what it said."""
        return "".join(self._feed(f"{step}\necho '{END}'\n", END))

    def wait_for(self, wanted: str) -> str:
        """Read on until something running in the background has said it."""
        return self._feed("", wanted)[-1]

    def leave(self) -> None:
        """End the shell, if need be with what it has left running."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGTERM)
        self._bash.communicate(timeout=30)

    def _feed(self, text: str, until: str) -> list[str]:
        self._write(text)
        assert self._bash.stdout is not None
        said: list[str] = []
        for line in self._bash.stdout:
            said.append(line)
            if until in line:
                return said
            if ENDED in line:
                break
        raise AssertionError(f"it ended before {until!r}:\n{''.join(said)}\n{self.log()}")

    def _write(self, text: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(text)
        self._bash.stdin.flush()

    def log(self) -> str:
        logs = (self._errors, self.directory / "paywatch.log")
        return "\n".join(log.read_text()[-4000:] for log in logs if log.exists())


def free_ports(count: int) -> list[str]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(one.getsockname()[1]) for one in taken]
    for one in taken:
        one.close()
    return ports


@pytest.fixture
def simulated() -> Iterator[dict[str, str]]:
    """The settings that `paywatch sim` tells its reader to export."""
    network = subprocess.Popen(
        [sys.executable, "-m", "paywatch", "sim", "--port", "0", "--ledger-interval", "0.5"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert network.stdout is not None
    exported: dict[str, str] = {}
    while len(exported) < 2:
        line = network.stdout.readline()
        assert line, "paywatch sim ended before it said what to export"
        if line.strip().startswith("export "):
            name, _, value = line.strip().removeprefix("export ").partition("=")
            exported[name] = value.strip("'")
    yield exported
    network.terminate()
    network.communicate()


@pytest.fixture
def shell(simulated: dict[str, str], tmp_path: Path) -> Iterator[Shell]:
    others = {k: v for k, v in os.environ.items() if not k.startswith("PAYWATCH_")}
    path = f"{Path(sys.executable).parent}:{others['PATH']}"
    shell = Shell(tmp_path, {**others, **simulated, "PATH": path})
    yield shell
    shell.leave()


def walk(shell: Shell) -> Sequence[str]:
    """What each step said; after the payment the webhook is waited for, as a reader would."""
    daemon_port, receiver_port = free_ports(2)
    shell.run(f"export PAYWATCH_HTTP_PORT={daemon_port}")
    said = []
    for step in STEPS:
        said.append(shell.run(step.replace(PORTS[1], receiver_port)))
        if "submit_transaction" in step and TOLD not in said[-1]:
            said[-1] += shell.wait_for(TOLD)
    return said


def step_with(said: Sequence[str], command: str) -> str:
    [found] = [out for step, out in zip(STEPS, said, strict=True) if command in step]
    return found


def document(shell: Shell, name: str) -> Any:
    return json.loads((shell.directory / name).read_text())


def test_every_step_is_run() -> None:
    assert len(STEPS) == 8
    for port in PORTS:
        assert port in README.read_text()


def check_doctor_finds_all_well(said: Sequence[str]) -> None:
    out = step_with(said, "paywatch doctor")
    assert out.count(" ok ") >= 4
    assert "WRONG" not in out


def check_the_merchant_has_an_id_and_a_secret(shell: Shell, said: Sequence[str]) -> None:
    merchant = document(shell, "merchant.json")
    assert merchant["merchant_id"] in step_with(said, "merchant create")
    assert merchant["webhook_secret"].startswith("whsec_")


def check_the_session_tells_how_to_pay_it(shell: Shell, said: Sequence[str]) -> None:
    session = document(shell, "session.json")
    assert session["payment_uri"] == step_with(said, "session create").splitlines()[0]
    assert session["payment_uri"].startswith("web+stellar:pay?")
    assert session["muxed_account"].startswith("M")
    assert set(session) == set(session_document(make_session(), "network"))


def check_the_receiver_is_told_as_the_readme_says(said: Sequence[str]) -> None:
    told = [line for line in step_with(said, "submit_transaction").splitlines() if TOLD in line]
    assert told == [f"{TOLD} order-1 12.5000000 native"]
    assert f"prints `{told[0]}`" in README.read_text()


def check_the_session_is_paid_by_that_payment(shell: Shell, said: Sequence[str]) -> None:
    [paid_by] = [
        line.removeprefix("paid by ")
        for line in step_with(said, "submit_transaction").splitlines()
        if line.startswith("paid by ")
    ]
    shown = step_with(said, "session show")
    session_id = document(shell, "session.json")["id"]
    assert shown.count(session_id) == 2, "shown and listed"
    assert paid_by in shown
    assert "checkout.session.paid" in shown
    assert "All " in shown
    assert "invariants hold" in shown


def check_the_daemon_has_stopped_in_order_and_everything_is_delivered(shell: Shell) -> None:
    log = (shell.directory / "paywatch.log").read_text()
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert events.index("started") < events.index("stopping") < events.index("stopped")
    session_id = document(shell, "session.json")["id"]
    view = json.loads(shell.run(f"paywatch session show --json {session_id}").partition(END)[0])
    assert view["paid_how"] == "exact"
    assert [payment["amount"] for payment in view["payments"]] == ["12.5000000"]
    assert [credit["outcome"] for credit in view["credits"]] == ["applied"]
    [event] = view["events"]
    assert event["delivery"]["state"] == "delivered"
    assert event["delivery"]["attempts"] == 1


def test_the_first_real_use_works_as_it_is_printed(shell: Shell) -> None:
    said = walk(shell)
    check_doctor_finds_all_well(said)
    check_the_merchant_has_an_id_and_a_secret(shell, said)
    check_the_session_tells_how_to_pay_it(shell, said)
    check_the_receiver_is_told_as_the_readme_says(said)
    check_the_session_is_paid_by_that_payment(shell, said)
    check_the_daemon_has_stopped_in_order_and_everything_is_delivered(shell)
