"""What Windows offices are given and cannot be run here: as far as parsers and a replay of the requests go."""

from __future__ import annotations

import re
import shlex
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
from house import CARE_MANAGER, HOME_HELP, House, general_name, pdf, plan_csv, plan_name, run_program
from replayed import WinScp

from relay.lifecycle import State

SCRIPTS = Path(__file__).parents[2] / "scripts"
TASK = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"


class ReplayedScript:
    """The lines of winscp-sync.txt, each done with the requests that WinSCP sends for it."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house, self.folder, self.winscp = house, folder, WinScp()
        self.done: list[str] = []

    def run(self) -> None:
        """Do every line; one that is not understood is an error."""
        for line in (SCRIPTS / "winscp-sync.txt").read_text(encoding="utf-8").splitlines():
            if line and not line.startswith("#"):
                self.do(*shlex.split(line.replace("\\", "/")))

    def do(self, verb: str, *words: str) -> None:
        """Do one line."""
        switches = {word.partition("=")[0]: word.partition("=")[2] for word in words if word.startswith("-")}
        assert set(switches) <= {"-delete", "-resumesupport", "-filemask"}
        places = [word for word in words if not word.startswith("-")]
        act: dict[str, Callable[..., None]] = {"get": self.get, "put": self.put}
        if verb in act:
            act[verb](switches, *places)
        else:
            assert [verb, *places] in (
                ["option", "batch", "continue"], ["option", "confirm", "off"], ["open", "%1%"], ["lcd", "%2%"], ["exit"],
            )  # fmt: skip
        self.done.append(verb)

    def get(self, switches: dict[str, str], source: str, target: str) -> None:
        """Fetch what fits, to a temporary name; remove what was fetched where it says so."""
        folder, _, pattern = source.partition("/")
        fetch = self.winscp.fetch_and_remove if "-delete" in switches else self.winscp.fetch
        for name in self.winscp.names(self.house, CARE_MANAGER, folder):
            if fnmatch(name, pattern):
                part = self.folder / target / f"{name}.filepart"
                assert fetch(self.house, CARE_MANAGER, f"{folder}/{name}", part).is_done
                part.rename(part.with_name(name))

    def put(self, switches: dict[str, str], source: str, target: str) -> None:
        """Send what fits and is not shut out, with what lies in folders; delete what the relay accepted."""
        shut_out = switches["-filemask"].removeprefix("|").split(";")
        outbox = self.folder / source.partition("/")[0]
        for file in [file for file in sorted(outbox.rglob("*")) if file.is_file()]:
            if any(fnmatch(file.name, mask) for mask in shut_out):
                continue
            if self.winscp.put(self.house, CARE_MANAGER, file, f"{target}{file.relative_to(outbox)}").is_done:
                assert "-delete" in switches
                file.unlink()


def test_the_script_for_winscp_sends_and_fetches(house: House, tmp_path: Path) -> None:
    """Small and large files go and come, one that another program writes is left alone, a refused one stays with its reason."""
    for box in ("outbox", "inbox", "refused"):
        (tmp_path / "c" / box).mkdir(parents=True)
    outbox = tmp_path / "c" / "outbox"
    (outbox / HOME_HELP).mkdir()
    files = {plan_name(): plan_csv(), general_name(): pdf(300_000), f"{HOME_HELP}/提供票 7月.pdf": pdf()}
    refused = plan_name(number=5)
    others = {refused: b"", general_name("pdf.tmp"): pdf()}
    for name, data in {**files, **others}.items():
        (outbox / name).write_bytes(data)
    coming = general_name(sender=HOME_HELP, recipient=CARE_MANAGER)
    (tmp_path / coming).write_bytes(pdf(200_000))
    assert WinScp().put(house, HOME_HELP, tmp_path / coming, f"send/{coming}").is_done
    for _ in range(2):
        script = ReplayedScript(house, tmp_path / "c")
        script.run()
        assert script.done.count("get") == 2
    assert sorted(file.name for file in outbox.iterdir() if file.is_file()) == sorted(others)
    assert list((outbox / HOME_HELP).iterdir()) == []
    sent = {t.name: t.size_bytes for t in house.transfers() if t.sender == CARE_MANAGER}
    assert sent == {Path(name).name: len(data) for name, data in files.items()}
    assert [file.name for file in (tmp_path / "c" / "inbox").iterdir()] == [coming]
    assert [(t.state, t.is_removed) for t in house.transfers() if t.sender == HOME_HELP] == [(State.COLLECTED, True)]
    note = tmp_path / "c" / "refused" / f"{refused}.refused.txt"
    assert "content.empty" in note.read_text(encoding="utf-8-sig")


def test_the_task_is_xml_and_calls_the_script_as_it_wants() -> None:
    """Task Scheduler's namespace and elements; the arguments are parameters that the script has."""
    task = ET.parse(SCRIPTS / "sync-windows-task.xml").getroot()
    assert task.tag == f"{TASK}Task"
    assert [child.tag.removeprefix(TASK) for child in task] == [
        "RegistrationInfo", "Triggers", "Principals", "Settings", "Actions",
    ]  # fmt: skip
    principal = task.find(f"{TASK}Principals/{TASK}Principal")
    actions = task.find(f"{TASK}Actions")
    assert principal is not None
    assert actions is not None
    assert principal.get("id") == actions.get("Context")
    told = actions.findtext(f"{TASK}Exec/{TASK}Arguments") or ""
    script = (SCRIPTS / "sync-windows.ps1").read_text(encoding="utf-8-sig")
    arguments = re.findall(r"-(\w+)", told.partition("sync-windows.ps1")[2])
    assert arguments
    assert all(f"${argument}" in script.partition("Set-StrictMode")[0] for argument in arguments)


def test_the_powershell_script_is_one_that_windows_reads_rightly() -> None:
    """Windows PowerShell 5.1 takes a script without a mark at its beginning for cp932; the task and WinSCP read CRLF."""
    script = (SCRIPTS / "sync-windows.ps1").read_bytes()
    assert script.startswith(b"\xef\xbb\xbf")
    for name in ("sync-windows.ps1", "winscp-sync.txt", "sync-windows-task.xml"):
        data = (SCRIPTS / name).read_bytes()
        assert data.count(b"\n") == data.count(b"\r\n"), name
    # Words of newer versions: 5.1 would stop at them.
    text = re.sub(r"'[^'\n]*'|\"[^\"\n]*\"|#[^\n]*", "", script.decode("utf-8-sig"))
    assert not re.search(r"&&|\|\||\?\?|\?\.|-Parallel\b|-AsHashtable\b", text)


@pytest.mark.skipif(shutil.which("pwsh") is None, reason="PowerShell is not installed")
def test_powershell_parses_the_script() -> None:
    """Its own parser finds no error."""
    command = (
        "$e = $null; [void][System.Management.Automation.Language.Parser]::ParseFile("
        f"'{SCRIPTS / 'sync-windows.ps1'}', [ref]$null, [ref]$e); $e | ForEach-Object {{ $_.Message }}; exit $e.Count"
    )
    done = run_program(["pwsh", "-NoProfile", "-Command", command])
    assert done.returncode == 0, done.stdout
