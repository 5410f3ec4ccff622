"""Offices are told by mail what arrived, through a real mail server, whatever becomes of it and of the relay."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from house import CARE_MANAGER, DAY_CARE, HOME_HELP, HOST, House, general_name, pdf, plan_csv, plan_name, wait_for
from outside_cas import make_root
from postoffice import PostOffice, tls_of

from relay.letters import Mailbox, MailPer, Waiting

ADDRESS = "kyotaku.a..b+file@mihonno.example.jp"
SENDER = "relay@relay.example"

MakeHouse = Callable[..., House]


@pytest.fixture
def post() -> Iterator[PostOffice]:
    """Return a mail server that asks for nothing."""
    with PostOffice().running() as office:
        yield office


@pytest.fixture
def house(make_house: MakeHouse, post: PostOffice) -> House:
    """Return a relay that tells HOME_HELP of each arrival at once, not started."""
    return telling_house(make_house, post)


def telling_house(make_house: MakeHouse, post: PostOffice, **chosen: Any) -> House:
    """Make a relay that sends its mail to *post*, with an address for HOME_HELP."""
    settings = {"host": HOST, "port": post.port, "tls": "none", "sender": SENDER,
                "gather_seconds": 0.05, "retry_seconds": 0.05, **chosen}  # fmt: skip
    house = make_house(mail=settings, operator={"name": "みほん中継センター", "telephone": "000-0000-0000"})
    tell(house, Mailbox(ADDRESS, MailPer.ARRIVAL))
    return house


def tell(house: House, mailbox: Mailbox | None) -> None:
    """Tell HOME_HELP there from now on."""
    now = datetime.now(UTC)
    house.ask(lambda ledger: ledger.record_mailbox(HOME_HELP, mailbox, actor="test", now=now))


async def send(house: House, *names: str, sender: Any = CARE_MANAGER) -> None:
    """Send plans under *names*, over one connection."""
    async with house.connect(sender) as caller:
        for name in names:
            async with caller.sftp.open(f"send/{name}", "wb") as file:
                await file.write(plan_csv() if name.endswith("CSV") else pdf())


def queue_of(house: House) -> list[Waiting]:
    """Return what waits."""
    return house.ask(lambda ledger: ledger.list_waiting())


def wait_until_empty(house: House) -> None:
    """Wait until nothing is left to tell."""
    wait_for(lambda: not queue_of(house), "an empty queue")


async def test_a_mail_tells_names_of_offices_and_counts_and_nothing_else(house: House, post: PostOffice) -> None:
    """Neither the name of a free file nor anything of its content is in the mail or in the journal, nor the address."""
    house.start()
    await send(house, general_name(label="YAMADA_HANAKO"))
    mail = post.wait_for_mail()
    assert (mail.sender, mail.recipient) == (SENDER, ADDRESS)
    head = mail.message
    assert re.fullmatch(r"<[0-9a-f]{32}@relay\.example>", head["Message-ID"])
    assert (head["Auto-Submitted"], head["To"], head["Date"].datetime.utcoffset().total_seconds()) == (
        "auto-generated",
        ADDRESS,
        9 * 3600,
    )
    assert head.get_content_type() == "text/plain"
    assert head.get_content_charset() == "utf-8"
    assert head["Subject"] == "新しいファイルが1件届きました / 1 new file arrived"
    japanese, english = mail.text.split("----")
    assert "みほん野ヘルパーステーション 御中" in japanese
    assert "みほん野居宅介護支援事業所から 1件" in japanese
    assert "000-0000-0000" in japanese
    assert "1 from みほん野居宅介護支援事業所" in english
    assert "YAMADA" not in mail.text + str(mail.raw)
    wait_until_empty(house)
    told = house.wait_for_event("mail.sent")
    assert (told["office"], told["arrivals"], told["tries"]) == (HOME_HELP, 1, 1)
    journal = house.journal.read_text(encoding="utf-8")
    assert ADDRESS not in journal
    assert "mihonno.example" not in journal


async def test_a_burst_is_one_mail(make_house: MakeHouse, post: PostOffice) -> None:
    """What arrives from several offices within the time of gathering is told in one mail, by its numbers."""
    house = telling_house(make_house, post, gather_seconds=4.0)
    house.start()
    await send(house, *(plan_name(number=number) for number in range(40)))
    await send(house, *(general_name(sender=DAY_CARE, number=number) for number in range(2)), sender=DAY_CARE)
    (waiting,) = queue_of(house)
    assert (waiting.office, waiting.per) == (HOME_HELP, MailPer.ARRIVAL)
    text = post.wait_for_mail().text
    wait_until_empty(house)
    assert "みほん野居宅介護支援事業所から 40件" in text
    assert "デイサービスみほん野①号館から 2件" in text
    assert len(post.received) == 1


async def test_an_office_without_an_address_is_told_nothing_and_none_waits(house: House, post: PostOffice) -> None:
    """Mail is a choice of each office; taking the address away drops what waits."""
    house.start()
    await send(house, general_name(recipient=DAY_CARE))
    assert queue_of(house) == []
    tell(house, Mailbox(ADDRESS, MailPer.DAY))
    await send(house, plan_name())
    (waiting,) = queue_of(house)
    assert (waiting.per, waiting.gathering, waiting.in_mail) == (MailPer.DAY, 1, 0)
    assert json.loads(house.relay("mail", "queue", "--json").stdout)[0]["gathering"] == 1
    tell(house, None)
    assert queue_of(house) == []
    assert post.received == []
    details = [event.detail for event in house.events() if event.kind == "office.mail"]
    assert details == ["per arrival", "per day", "none"]


async def test_a_refused_recipient_is_given_up_with_its_code_and_never_its_address(
    house: House, post: PostOffice
) -> None:
    """A permanent refusal ends the mail: journal and history say the code, though the server quoted the address."""
    post.to_recipients.append(f"550 5.1.1 <{ADDRESS}>: unknown here")
    house.start()
    await send(house, plan_name())
    told = house.wait_for_event("mail.given_up")
    assert (told["office"], told["arrivals"], told["cause"]) == (HOME_HELP, 1, "550 5.1.1")
    wait_until_empty(house)
    assert post.received == []
    (event,) = [event for event in house.events() if event.kind == "mail.given_up"]
    assert (event.office, event.detail) == (HOME_HELP, "1 arrivals: 550 5.1.1")
    assert ADDRESS not in house.journal.read_text(encoding="utf-8")


async def test_what_a_server_puts_off_is_tried_again_under_the_same_id(house: House, post: PostOffice) -> None:
    """A temporary failure, at the recipient or at the mail, costs time and nothing else."""
    post.to_recipients.append("451 4.7.1 greylisted")
    post.to_mails.append("452 4.3.1 full")
    house.start()
    await send(house, plan_name())
    post.wait_for_mail()
    wait_until_empty(house)
    assert len(post.received) == 1
    assert [line["answer"] for line in house.journal_lines("mail.postponed")] == ["451 4.7.1", "452 4.3.1"]
    assert house.wait_for_event("mail.sent")["tries"] == 3


async def test_a_server_that_is_away_is_told_once_and_found_again(house: House, post: PostOffice) -> None:
    """Uploads go on while the mail server is away; what arrived meanwhile is told when it is back, once."""
    post.shut()
    house.start()
    await send(house, plan_name())
    assert "refused" in house.wait_for_event("mail.server_failed")["cause"].lower()
    await send(house, plan_name(number=1))
    post.open()
    text = post.wait_for_mail().text
    house.wait_for_event("mail.server_recovered")
    wait_until_empty(house)
    assert "2件届きました" in text
    assert len(post.received) == len(house.journal_lines("mail.server_failed")) == 1


async def test_what_cannot_be_told_in_time_is_given_up(make_house: MakeHouse, post: PostOffice) -> None:
    """A mail server that stays away keeps nothing waiting for ever; the history says who was not told."""
    post.shut()
    house = telling_house(make_house, post, give_up_seconds=0.5)
    house.start()
    await send(house, plan_name())
    assert house.wait_for_event("mail.given_up")["cause"] == "too late"
    wait_until_empty(house)
    assert [event.detail for event in house.events() if event.kind == "mail.given_up"] == ["1 arrivals: too late"]


async def test_killed_between_sending_and_noting_it_sends_again_under_the_same_id(
    house: House, post: PostOffice
) -> None:
    """A relay killed while the server has the mail and it does not know so sends it once more, recognisable."""
    house.start()
    post.is_open.clear()
    await send(house, plan_name())
    first = post.wait_for_mail()
    house.kill()
    post.is_open.set()
    house.start()
    second = post.wait_for_mail(2)
    wait_until_empty(house)
    assert first.message["Message-ID"] == second.message["Message-ID"]
    assert first.raw == second.raw
    assert len(post.received) == 2


async def test_stopped_while_a_mail_is_on_its_way_does_not_send_it_twice(house: House, post: PostOffice) -> None:
    """A relay that is asked to stop hears the server's answer first."""
    house.start()
    post.is_open.clear()
    await send(house, plan_name())
    post.wait_for_mail()
    stopping = asyncio.create_task(asyncio.to_thread(house.stop))
    await asyncio.to_thread(house.wait_for_event, "server.draining")
    post.is_open.set()
    assert await stopping == 0
    assert queue_of(house) == []
    assert len(post.received) == 1


async def test_starttls_and_a_password_from_a_file(make_house: MakeHouse, tmp_path_factory: Any) -> None:
    """With STARTTLS the mail goes encrypted to a server whose CA we were given, and the password only then."""
    folder = tmp_path_factory.mktemp("tls")
    root = make_root("Mail Root")
    with PostOffice(tls=tls_of(root, folder), password="open sesame").running() as post:
        (folder / "password").write_text("open sesame\n", encoding="utf-8")
        house = telling_house(
            make_house, post, host="localhost", tls="starttls", ca_file=str(folder / "root.pem"), username="relay",
            password_file=str(folder / "password"),
        )  # fmt: skip
        house.start()
        await send(house, plan_name())
        mail = post.wait_for_mail()
        assert (mail.is_encrypted, mail.user) == (True, "relay")
        wait_until_empty(house)
        tried = house.relay("mail", "test", "somebody@example.jp")
        assert tried.stdout == f"accepted by localhost:{post.port} (TLSv1.3): 250 2.0.0 kept\n", tried.stderr
        assert post.wait_for_mail(2).recipient == "somebody@example.jp"


async def test_tls_from_the_first_byte_and_a_password_from_a_file(make_house: MakeHouse, tmp_path_factory: Any) -> None:
    """As at port 465: no mail and no password goes in the clear, and a server of another CA gets neither."""
    folder, other = tmp_path_factory.mktemp("tls"), tmp_path_factory.mktemp("other")
    tls_of(make_root("Another"), other)
    with PostOffice(
        tls=tls_of(make_root("Mail Root"), folder), is_wrapped=True, password="open sesame"
    ).running() as post:
        (folder / "password").write_text("open sesame\n")
        (folder / "password").chmod(0o600)
        asked = {"host": "localhost", "tls": "tls", "username": "relay", "password_file": str(folder / "password")}
        house = telling_house(make_house, post, **asked, ca_file=str(folder / "root.pem"))
        house.start()
        await send(house, general_name())
        mail = post.wait_for_mail()
        assert (mail.is_encrypted, mail.user) == (True, "relay")
        wait_until_empty(house)
        tried = house.relay("mail", "test", "you@example.jp")
        assert tried.returncode == 0, tried.stderr
        stranger = telling_house(make_house, post, **asked, ca_file=str(other / "root.pem"))
        refused = stranger.relay("mail", "test", "you@example.jp")
        assert (refused.returncode, "could not be used" in refused.stderr) == (1, True)
        assert len(post.received) == 2


async def test_a_server_of_another_ca_gets_no_mail_and_no_password(
    make_house: MakeHouse, tmp_path_factory: Any
) -> None:
    """Who is not certified by the CA that we were given is no mail server of ours."""
    folder, other = tmp_path_factory.mktemp("tls"), tmp_path_factory.mktemp("other")
    tls_of(make_root("Another"), other)
    with PostOffice(tls=tls_of(make_root("Mail Root"), folder)).running() as post:
        house = telling_house(make_house, post, host="localhost", tls="starttls", ca_file=str(other / "root.pem"))
        house.start()
        await send(house, plan_name())
        assert "certificate" in house.wait_for_event("mail.server_failed")["cause"]
        tried = house.relay("mail", "test", "somebody@example.jp")
        assert tried.returncode == 1
        assert "certificate" in tried.stderr
        assert post.received == []
        assert queue_of(house)[0].gathering == 1


async def test_a_new_master_key_seals_the_addresses_again(house: House, post: PostOffice) -> None:
    """After a rotation the old key is gone, and offices are told all the same."""
    house.start()
    rotated = house.relay("key", "rotate", "--master", "--yes")
    assert rotated.returncode == 0, rotated.stderr
    assert ADDRESS.encode() not in house.config.store.path.read_bytes()
    house.restart()
    await send(house, plan_name())
    assert post.wait_for_mail().recipient == ADDRESS


def test_the_command_line_sets_an_address_shows_it_and_says_what_is_wrong(house: House, post: PostOffice) -> None:
    """What is no address never reaches the store or a mail server; a refusal of the server is told with its text."""
    wrong = house.relay("office", "mail", DAY_CARE, "--address", "a@example.jp\nBcc: x@example.jp")
    assert (wrong.returncode, "must be a mail address" in wrong.stderr) == (2, True)
    assert house.relay("office", "mail", DAY_CARE, "--per", "day").returncode == 2
    told = house.relay("office", "mail", DAY_CARE, "--per", "day", "--address", "day@example.jp")
    assert "is told per day at day@example.jp" in told.stdout
    shown = json.loads(house.relay("office", "show", DAY_CARE, "--json").stdout)
    assert shown["mail"] == {"address": "day@example.jp", "per": "day"}
    assert "per day to day@example.jp" in house.relay("office", "show", DAY_CARE).stdout
    assert "not told by mail" in house.relay("office", "mail", DAY_CARE, "--per", "none").stdout
    commands = [event.detail for event in house.events() if event.kind == "command"]
    assert any("office mail" in line for line in commands)
    assert not any("example.jp" in line for line in commands)
    post.to_recipients.append("550 5.1.1 not here")
    tried = house.relay("mail", "test", "somebody@example.jp")
    assert (tried.returncode, "550 5.1.1 not here" in tried.stderr) == (1, True)


def test_without_a_mail_server_the_command_line_says_so(make_house: MakeHouse) -> None:
    """Nobody waits for mails that no setting lets go."""
    off = make_house()
    assert "no mail server" in off.relay("mail", "test", "somebody@example.jp").stderr
    assert "names no mail server" in off.relay("office", "mail", HOME_HELP, "--address", "a@example.jp").stderr
    assert off.relay("mail", "queue").stdout == "no mail waits\n"
