"""What another session of an office is told while a CLOSE is on its way to stable storage."""

from __future__ import annotations

import raw_sftp as sftp
from house import House, plan_csv, plan_name
from raw_sftp import Long, open_raw

TIMES = 25


async def test_a_file_is_never_gone_between_its_close_and_its_commit(house: House) -> None:
    """STAT, sent right behind another session's CLOSE, finds the upload or the transfer, and no hole between them."""
    content = plan_csv()
    async with house.dial() as one, house.dial() as other, open_raw(one) as writer, open_raw(other) as looker:
        for number in range(TIMES):
            path = f"/send/{plan_name(number=number)}"
            handle = await writer.open(path)
            assert (await writer.call(sftp.WRITE, handle, Long(0), content)).code == sftp.OK
            closing, looking = writer.ask(sftp.CLOSE, handle), looker.ask(sftp.STAT, path)
            assert (await looker.reply_to(looking)).size == len(content)
            assert (await writer.reply_to(closing)).code == sftp.OK


async def test_a_rename_right_behind_another_sessions_close_finds_what_was_closed(house: House) -> None:
    """A temporary name that is being closed is renamed, or told to be unfinished; it is never said not to be there."""
    content = plan_csv()
    async with house.dial() as one, house.dial() as other, open_raw(one) as writer, open_raw(other) as renamer:
        for number in range(TIMES):
            path = f"/send/{plan_name(number=number)}"
            handle = await writer.open(f"{path}.filepart")
            assert (await writer.call(sftp.WRITE, handle, Long(0), content)).code == sftp.OK
            closing, moving = writer.ask(sftp.CLOSE, handle), renamer.ask(sftp.RENAME, f"{path}.filepart", path)
            reply = await renamer.reply_to(moving)
            assert reply.code == sftp.OK or reply.text.startswith("upload.unfinished: ")
            assert (await writer.reply_to(closing)).code == sftp.OK
