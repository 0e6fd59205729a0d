from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from tests.cli.helpers import MODEL, Cli, Run, alive, clean_environment, descendants, requests
from tests.command import Command
from tests.ports import quiet_port
from tests.waiting import wait_until

from lowtide.states import ProviderName
from lowtide.store import Announcement, announce, connect
from lowtide_cli.commands.up import Options
from lowtide_cli.commands.up.announcement import hooks_command, provider_line
from lowtide_cli.commands.up.exports import hooks_exports, shared_exports, write_exports
from lowtide_cli.commands.up.ports import chosen_port
from lowtide_cli.commands.up.running import running
from lowtide_cli.commands.up.shape import short_pauses, tell_of_workers
from lowtide_cli.local import SERVER_VARIABLE, EmbeddedRedis, Shape, Stack, stop_on_signals
from lowtide_cli.terminal import CommandError
from lowtide_worker.settings import WorkerSettings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
NEVER_USED = {"LOWTIDE_REDIS_URL": "redis://127.0.0.1:1/0", "GEMINI_API_KEY": "never-used"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """Starts all at once, because each takes seconds to start and mostly waits."""
    wanted = {
        "whole": ["up"],
        "killed": ["up", "--no-flower"],
        "mourning": ["up", "--no-flower", "--one-worker"],
        "demo": ["demo"],
    }
    found: dict[str, Run] = {}
    before = signal.getsignal(signal.SIGINT)
    for name, arguments in wanted.items():
        # A script's shell starts a command in the background with SIGINT ignored.
        signal.signal(signal.SIGINT, signal.SIG_IGN if name == "whole" else before)
        cli = Cli(clean_environment(), tmp_path_factory.mktemp(name))
        if arguments[0] == "demo":
            found[name] = Run(cli.start(*arguments, **NEVER_USED), cli)
            continue
        ports = [f"--{part}-port={quiet_port()}" for part in ("redis", "emulator", "flower")]
        found[name] = Run(cli.start(*arguments, "--data-dir", "data", *ports), cli)
    yield found
    for run in found.values():
        run.process.kill()
        run.process.communicate()


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command({"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, tmp_path, capsys)


def test_up_serves_a_batch_and_ctrl_c_leaves_nothing_behind(runs: dict[str, Run]) -> None:
    up = runs["whole"]
    said = up.until_up()
    mine = descendants(up.process.pid)
    assert len(mine) >= 7  # server, emulator, two workers, the processes of one, Flower
    password = next(line for line in said if "Flower" in line).split("lowtide:")[1].split()[0]
    data = up.cli.folder / "data"
    assert (data / "flower" / "login").read_text() == f"lowtide:{password}"
    assert any(re.search(r"Batches +http://127\.0\.0\.1:\d+/lowtide", line) for line in said)
    assert f"In another terminal, first:  . {data}/env\n" in said
    assert (data / "env").stat().st_mode & 0o777 == 0o600
    exports = up.exports()
    assert exports["LOWTIDE_POLL_FIRST_SECONDS"] == "2", "a worker beside these polls as often"
    redis_password = (data / "redis" / "password").read_text()
    assert redis_password in exports["LOWTIDE_REDIS_URL"]
    assert not any(redis_password in line for line in said)
    key = data / "emulator" / "key"
    assert (key.read_text(), key.stat().st_mode & 0o777) == (exports["GOOGLE_API_KEY"], 0o600)
    for pid in mine:
        shown = Path(f"/proc/{pid}/cmdline").read_text()
        assert not any(secret in shown for secret in (password, redis_password, exports["GOOGLE_API_KEY"]))
    for folder in (data, *filter(Path.is_dir, data.iterdir())):
        assert folder.stat().st_mode & 0o077 == 0, folder
    without_key = httpx.get(f"{exports['GOOGLE_GEMINI_BASE_URL']}/_emulator/jobs", trust_env=False)
    assert without_key.status_code == 400
    other = Cli({**clean_environment(), **exports}, up.cli.folder)
    batch_id = other("submit", other.file(requests(2)), "--model", MODEL).out.strip()
    assert other("status", batch_id, "--json").json()["total"] == 2
    second = other("up", "--data-dir", "elsewhere", code=1).err
    assert f"`lowtide up` already runs on the data in {data}: pid {up.process.pid}" in second
    assert "This shell has its environment" in second
    assert "unset LOWTIDE_REDIS_URL LOWTIDE_SPOOL_URL GOOGLE_API_KEY" in second
    assert not (up.cli.folder / "elsewhere").exists()
    up.process.send_signal(signal.SIGINT)
    rest = up.rest()
    assert up.process.wait(60) == 0
    assert "everything is stopped" in rest
    assert "Traceback" not in rest
    assert not any(map(alive, mine))


def test_a_killed_one_leaves_no_note_that_names_the_process_that_has_its_number_now(tmp_path: Path) -> None:
    (tmp_path / "running.json").write_text(json.dumps({"pid": os.getpid(), "pages": {"Redis": "127.0.0.1:1"}}))

    assert running(tmp_path) == ""


def test_two_do_not_share_a_data_folder_and_a_kill_leaves_no_orphan(runs: dict[str, Run]) -> None:
    up = runs["killed"]
    said = up.until_up()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = f"--redis-port={taken.getsockname()[1]}"
        second = up.cli("up", "--data-dir", "data", "--no-flower", port, code=1)
    [redis_line] = [line for line in said if "Redis" in line and "127.0.0.1" in line]
    address = redis_line.split("@")[1].split("/")[0]
    assert f"`lowtide up` already runs on the data in {up.cli.folder / 'data'}: pid {up.process.pid}" in second.err
    assert f"Redis {address}, emulator http://" in second.err
    assert f"`kill {up.process.pid}`, or choose another folder with --data-dir" in second.err
    assert "in use" not in second.err
    mine = descendants(up.process.pid)
    up.process.kill()
    up.process.wait(60)
    wait_until(lambda: not any(map(alive, mine)))


@pytest.mark.thorough
def test_a_batch_that_was_under_way_goes_on_at_the_next_start(tmp_path: Path) -> None:
    cli = Cli(clean_environment(), tmp_path)
    ports = [f"--{part}-port={quiet_port()}" for part in ("redis", "emulator")]
    arguments = ["up", "--data-dir", "data", "--no-flower", "--one-worker", *ports]
    up = Run(cli.start(*arguments), cli)
    up.until_up()
    other = Cli({**clean_environment(), **up.exports()}, tmp_path)
    batch_id = other("submit", other.file(requests(2)), "--model", MODEL).out.strip()
    wait_until(lambda: other("status", batch_id, "--json").json()["jobs"][0]["state"] in {"pending", "running"})
    up.process.send_signal(signal.SIGINT)
    assert up.process.communicate(timeout=180)[0].endswith("everything is stopped\n")

    up = Run(cli.start(*arguments), cli)
    up.until_up()
    # The emulator has forgotten the job.
    done = wait_until(lambda: (found := other("status", batch_id, "--json").json())["state"] == "completed" and found)
    up.process.send_signal(signal.SIGINT)
    assert up.process.communicate(timeout=180)[0].endswith("everything is stopped\n")
    assert (done["succeeded"], len(done["jobs"])) == (2, 2)


def test_up_starts_a_dead_worker_again_and_stops_when_the_server_dies(runs: dict[str, Run]) -> None:
    up = runs["mourning"]
    up.until_up()
    os.kill(up.child("celery"), signal.SIGKILL)
    assert up.process.stdout is not None
    assert any("worker restarted" in line for line in up.process.stdout)
    mine = descendants(up.process.pid)
    os.kill(up.child("-server"), signal.SIGKILL)
    assert "Redis ended unexpectedly (killed by SIGKILL)" in up.rest()
    assert up.process.wait(60) == 1
    assert not any(map(alive, mine))


def test_demo_gets_every_result_and_leaves_nothing_behind(runs: dict[str, Run]) -> None:
    rest = runs["demo"].rest()
    assert runs["demo"].process.wait(60) == 0, rest
    assert "has its result, checked key by key" in rest
    assert "\nNext, requests of your own" in rest
    pids = named(next(line for line in rest.splitlines() if line.startswith("processes: ")))
    assert len(pids) == 4
    assert not any(map(alive, pids))


def named(line: str) -> set[int]:
    """Returns the ids of the processes that a demo names."""
    return {int(word) for word in line.replace(",", " ").split() if word.isdecimal()}


def test_ctrl_c_in_a_demo_leaves_nothing_and_promises_nothing(tmp_path: Path) -> None:
    cli = Cli(clean_environment(), tmp_path)
    with cli.start("demo", **NEVER_USED) as process:
        demo = Run(process, cli)
        assert process.stdout is not None
        before = list(takewhile(lambda line: not line.startswith("submitted "), process.stdout))
        children = named(next(line for line in before if line.startswith("processes: ")))
        mine = descendants(process.pid)
        assert children <= mine
        process.send_signal(signal.SIGINT)
        said = list(takewhile(lambda line: line != "stopped; nothing is left behind\n", process.stdout))
        running = [pid for pid in children if alive(pid)]
        assert demo.rest() == "", "the news that nothing is left comes last"
        assert process.wait(60) == 130
    assert not running
    assert not any("no longer watching" in line for line in said)
    assert not any(map(alive, mine))


@pytest.mark.thorough  # continuous integration runs `make demo-vertex` beside the tests
def test_demo_goes_from_and_to_cloud_storage_and_bigquery(tmp_path: Path) -> None:
    cli = Cli(clean_environment(), tmp_path)
    demo = Run(cli.start("demo", "--vertex", **NEVER_USED), cli)
    rest = demo.process.communicate(timeout=300)[0]
    assert demo.process.returncode == 0, rest
    assert "gs://lowtide-demo/shop/questions.jsonl → gs://lowtide-demo/shop/answers" in rest
    assert "bq://lowtide-demo.demo.questions → bq://lowtide-demo.demo.answers" in rest
    assert rest.count("every one of the ") == 2


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("LOWTIDE_FLOWER_BASIC_AUTH", "password", "user:password"),
        ("LOWTIDE_REDIS_URL", "redis://127.0.0.1:1/0", "LOWTIDE_REDIS_URL is set: unset it, or start that server"),
    ],
)
def test_up_tells_at_once_what_cannot_work(command: Command, setting: str, value: str, told: str) -> None:
    said = command("up", **{setting: value})
    assert (said.code, told in said.err) == (1, True)


@pytest.mark.parametrize(("emulated", "other"), [(True, "Google, for money"), (False, "the emulator")])
def test_data_of_the_emulator_and_of_google_are_kept_apart(
    command: Command, tmp_path: Path, emulated: bool, other: str
) -> None:
    (tmp_path / "data" / "redis").mkdir(parents=True)
    (tmp_path / "data" / "redis" / "password").write_text("secret")
    (tmp_path / "data" / "emulator").mkdir()  # of a run that ended before it had Redis
    if emulated:
        (tmp_path / "data" / "redis" / "emulated").touch()
    options = ["--no-emulator"] if emulated else ["--emulator"]
    said = command("up", "--data-dir", "data", *options, GEMINI_API_KEY="never-used")
    assert said.code == 1
    assert f"would be asked again at {other}: choose another folder with --data-dir" in said.err
    assert not (tmp_path / "data" / "redis" / "server.conf").exists()


def test_up_in_a_shell_with_the_export_lines_of_an_earlier_run_says_what_to_unset(command: Command) -> None:
    exported = {"LOWTIDE_REDIS_URL": "redis://127.0.0.1:1/0", "GOOGLE_API_KEY": "x", "LOWTIDE_SPOOL_URL": "spool"}
    said = command("up", GOOGLE_GEMINI_BASE_URL="http://127.0.0.1:1", **exported).err
    assert "unset LOWTIDE_REDIS_URL LOWTIDE_SPOOL_URL GOOGLE_API_KEY GOOGLE_GEMINI_BASE_URL\n" in said


@pytest.mark.parametrize("server", ["redis", "emulator", "flower"])
def test_a_port_that_the_user_chose_is_never_replaced(command: Command, server: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = command("up", f"--{server}-port", str(taken.getsockname()[1]))
    assert said.code == 1
    assert f"--{server}-port: port " in said.err
    assert "is in use; choose another one, or leave the option out" in said.err


def test_a_usual_port_that_is_taken_is_replaced_and_a_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        usual = taken.getsockname()[1]
        port = chosen_port(Options(), "emulator", usual)
    assert port != usual
    assert f"port {usual} is in use: emulator gets port {port}" in " ".join(capsys.readouterr().err.split())


def test_the_lines_for_events_of_the_emulator_are_whole() -> None:
    keys_url = "http://127.0.0.1:8080/.well-known/jwks.json"
    url = "http://127.0.0.1:9470/a path"

    assert hooks_exports(url, "http://127.0.0.1:8080") == {
        "LOWTIDE_WEBHOOK_URL": url,
        "LOWTIDE_HOOKS_KEYS_URL": keys_url,
    }
    assert hooks_exports(None, "http://127.0.0.1:8080") == hooks_exports(url, None) == {}
    assert hooks_command(url) == "lowtide hooks serve --port 9470"
    assert hooks_command("https://api.example/hooks/gemini") == "lowtide hooks serve"


def test_producers_in_another_terminal_get_the_budgets_and_prices_of_the_workers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOWTIDE_BUDGETS", '{"tenant=acme": {"day": 1}}')
    monkeypatch.setenv("LOWTIDE_PRICES", "prices.toml")
    monkeypatch.setenv("LOWTIDE_LINGER_SECONDS", "")

    assert shared_exports() == {
        "LOWTIDE_BUDGETS": '{"tenant=acme": {"day": 1}}',
        "LOWTIDE_PRICES": str(tmp_path / "prices.toml"),
    }


def test_the_emulator_of_another_run_is_not_called_gemini(tmp_path: Path) -> None:
    stack = Stack(Shape(directory=tmp_path, environment={}, emulator=False))
    url = "http://127.0.0.1:8080"
    here = WorkerSettings.model_construct(provider=ProviderName.GEMINI, google_gemini_base_url=url)
    proxy = WorkerSettings.model_construct(
        provider=ProviderName.GEMINI, google_gemini_base_url="https://proxy.example.com"
    )
    google = WorkerSettings.model_construct(provider=ProviderName.GEMINI, google_gemini_base_url=None)

    assert provider_line(stack, here) == f"{url}  [dim]GOOGLE_GEMINI_BASE_URL, on this machine[/]"
    assert provider_line(stack, proxy) == "Gemini, with your API key, at https://proxy.example.com"
    assert provider_line(stack, google) == "Gemini, with your API key: [yellow]jobs cost money[/]"


def test_up_names_the_workers_that_run_already(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EmbeddedRedis(tmp_path) as server:
        settings = WorkerSettings.model_construct(redis_url=SecretStr(server.url))
        tell_of_workers(settings)
        assert capsys.readouterr().err == ""
        with connect(settings) as client:
            for name in ("results@tide", "jobs@[red]\x1b"):
                announce(client, Announcement(worker=name))
        tell_of_workers(settings)
    said = capsys.readouterr().err
    assert "workers already run with this LOWTIDE_REDIS_URL: jobs@[red]\ufffd, results@tide; those of this run" in said


def test_a_hangup_stays_ignored_where_nohup_has_it_so() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        for number in before:
            signal.signal(number, signal.SIG_IGN if number != signal.SIGTERM else signal.SIG_DFL)
        stop_on_signals()
        found = {number: signal.getsignal(number) for number in before}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    assert found.pop(signal.SIGHUP) is signal.SIG_IGN
    assert {*found.values()} == {signal.default_int_handler}


def test_the_reason_for_an_end_comes_before_the_news_that_everything_is_stopped(tmp_path: Path) -> None:
    cli = Cli({**clean_environment(), SERVER_VARIABLE: "/bin/false"}, tmp_path)
    ended = cli.start("up", "--no-flower", "--data-dir", "data").communicate(timeout=180)[0]
    assert ended.index("lowtide: Redis ended") < ended.index("everything is stopped")
    assert "Traceback" not in ended


@pytest.mark.parametrize(
    ("given", "first", "longest"),
    [({}, "2", "10"), ({"poll_first_seconds": 30.0}, "30", "30"), ({"poll_max_seconds": 1.0}, "1", "1")],
)
def test_the_short_pauses_of_the_emulator_never_contradict_the_users_own(
    given: dict[str, Any], first: str, longest: str
) -> None:
    settings = WorkerSettings.model_construct(set(given), **given)
    assert short_pauses(settings) == {"LOWTIDE_POLL_FIRST_SECONDS": first, "LOWTIDE_POLL_MAX_SECONDS": longest}


def test_the_file_for_a_shell_takes_the_place_of_no_other_file(tmp_path: Path) -> None:
    exports = {"LOWTIDE_SPOOL_URL": "spool"}
    own = tmp_path / "env"
    assert write_exports(tmp_path, exports) == write_exports(tmp_path, exports) == own
    own.unlink()
    own.write_text("API_KEY=mine\n")

    other = write_exports(tmp_path, exports)

    assert other == tmp_path / "lowtide.env"
    assert own.read_text() == "API_KEY=mine\n"
    other.unlink()
    os.mkfifo(other)
    with pytest.raises(CommandError, match="choose another --data-dir"):
        write_exports(tmp_path, exports)
