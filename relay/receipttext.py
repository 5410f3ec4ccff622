"""Receipts as texts: what happened to a transfer, in words that a clerk and an inspector can read.

One text a step: accepted, collected, taken back, returned, replaced, thrown away unread, expired, refused.  It holds facts of
the ledger that do not change any more and nothing else (no office's name, no clock), so that the same receipt is the
same bytes whenever it is read, by whichever of the two offices.  Japanese first, then English with one fact a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import StrEnum

from relay.lifecycle import State
from relay.model import Refusal, Transfer
from relay.sshsig import signer_line

# Who signs, and for what: in allowed-signers files, and in every signature.
PRINCIPAL = "careplan-relay"
NAMESPACE = "careplan-relay-receipt"
ALLOWED_SIGNERS = "allowed_signers"

_JAPAN = timezone(timedelta(hours=9))


class ReceiptStep(StrEnum):
    """The steps of a transfer that leave a receipt."""

    ACCEPTED = "accepted"
    COLLECTED = "collected"
    RECALLED = "recalled"
    RETURNED = "returned"
    SUPERSEDED = "superseded"
    DISCARDED = "discarded"
    EXPIRED = "expired"
    REFUSED = "refused"


_ENDS: Mapping[State, ReceiptStep] = {
    State.RECALLED: ReceiptStep.RECALLED,
    State.RETURNED: ReceiptStep.RETURNED,
    State.SUPERSEDED: ReceiptStep.SUPERSEDED,
    State.DISCARDED: ReceiptStep.DISCARDED,
    State.EXPIRED: ReceiptStep.EXPIRED,
}

# Title and what happened, in both languages.
_TOLD: Mapping[ReceiptStep, tuple[str, str, str, str]] = {
    ReceiptStep.ACCEPTED: (
        "受付証",
        "受け付けて保存し、宛先の事業所が取得できるようにしました。",
        "Receipt: accepted",
        "The file was accepted, stored, and made available to the receiving office.",
    ),
    ReceiptStep.COLLECTED: (
        "取得証",
        "宛先の事業所が、ファイルの最後まで取得しました。",
        "Receipt: collected",
        "The receiving office has read the whole file.",
    ),
    ReceiptStep.RECALLED: (
        "取消証",
        "宛先の事業所が取得する前に、送信元の事業所が送信を取り消しました。",
        "Receipt: taken back",
        "The sending office took the file back before the receiving office had collected it.",
    ),
    ReceiptStep.RETURNED: (
        "返却証",
        "宛先の事業所が取得を終える前に、サーバーの運営者が送信元の事業所へ返しました。",
        "Receipt: returned",
        "The operator gave the file back to the sending office before the receiving office had collected it.",
    ),
    ReceiptStep.SUPERSEDED: (
        "差し替え証",
        "途中で切れていたため、送信元の事業所が同じ名前で送り直したものに差し替えられました。",
        "Receipt: replaced",
        "The file had been cut off; the same name, sent again by the sending office, took its place.",
    ),
    ReceiptStep.DISCARDED: (
        "未取得削除証",
        "宛先の事業所が、取得しないまま削除しました。",
        "Receipt: removed unread",
        "The receiving office removed the file without having collected it.",
    ),
    ReceiptStep.EXPIRED: (
        "期限切れ証",
        "保管期限までに宛先の事業所が取得しなかったため、保管を終えました。",
        "Receipt: expired",
        "The receiving office did not collect the file in time; it is no longer kept.",
    ),
    ReceiptStep.REFUSED: (
        "不受理証",
        "受け付けませんでした。宛先の事業所には届いていません。",
        "Receipt: refused",
        "The file was not accepted. It has not reached the receiving office.",
    ),
}


@dataclass(frozen=True, slots=True)
class Receipt:
    """One receipt: which step of what, and when (UTC)."""

    step: ReceiptStep
    at: datetime
    of: Transfer | Refusal

    @property
    def name(self) -> str:
        """The name of its file: day in Japan, number, step."""
        number = f"{self.of.id:08d}" if isinstance(self.of, Transfer) else f"R{self.of.number:08d}"
        return f"{self.at.astimezone(_JAPAN):%Y%m%d}-{number}-{self.step}.txt"

    @property
    def month(self) -> str:
        """The folder it lies in."""
        return month_of(self.at)


def list_steps(transfer: Transfer) -> Iterator[Receipt]:
    """Yield the receipts there are of *transfer*, in the order of what happened."""
    yield Receipt(ReceiptStep.ACCEPTED, transfer.accepted_at, transfer)
    if transfer.collected_at is not None:
        yield Receipt(ReceiptStep.COLLECTED, transfer.collected_at, transfer)
    end = _ENDS.get(transfer.state)
    if end is not None and transfer.ended_at is not None:
        yield Receipt(end, transfer.ended_at, transfer)


def month_of(at: datetime) -> str:
    """Return the month of *at* in Japan, as ``2026-11``."""
    return f"{at.astimezone(_JAPAN):%Y-%m}"


def span_of(month: str) -> tuple[datetime, datetime]:
    """Return the first moment of a month in Japan and that of the next; ValueError for anything else."""
    first = datetime.strptime(month, "%Y-%m").replace(tzinfo=_JAPAN)
    return first, (first + timedelta(days=31)).replace(day=1)


def render_receipt(receipt: Receipt) -> bytes:
    """Return the text of *receipt*: UTF-8, CRLF, for Notepad and for ``ssh-keygen -Y verify`` alike."""
    title_ja, told_ja, title_en, told_en = _TOLD[receipt.step]
    facts = _facts(receipt)
    lines = [
        title_ja,
        "=" * 40,
        "",
        told_ja,
        "",
        *(f"  {ja}: {value}" for ja, _en, value in facts),
        "",
        *_PROVES_JA,
        "",
        "",
        title_en,
        "=" * 40,
        "",
        told_en,
        "",
        *(f"  {en}: {value}" for _ja, en, value in facts),
        "",
        *_PROVES_EN,
    ]
    return ("\ufeff" + "\r\n".join(lines) + "\r\n").encode()


def _facts(receipt: Receipt) -> list[tuple[str, str, str]]:
    """Return label in Japanese, label in English, and value, of everything the receipt is about."""
    at = ("日時", "Time", _time(receipt.at))
    of = receipt.of
    if isinstance(of, Refusal):
        return [
            at,
            ("初回の日時", "First time", _time(of.first_at)),
            ("回数", "Times", str(of.count)),
            ("送信しようとした事業所", "Office", of.office),
            ("ファイル名", "File", _one_line(of.name)),
            ("コード", "Code", of.finding.code),
        ]
    facts = [
        ("受付番号", "Number", str(of.id)),
        at,
        ("受付日時", "Accepted", _time(of.accepted_at)),
        ("送信元の事業所番号", "From office", of.sender),
        ("宛先の事業所番号", "To office", of.recipient),
        ("ファイル名", "File", _one_line(of.name)),
        ("サイズ", "Bytes", str(of.size_bytes)),
        ("SHA-256", "SHA-256", of.sha256.hex()),
    ]
    if of.completes is not None:
        facts.append(("途中で切れた送信の受付番号", "Completes number", str(of.completes)))
    return facts


def render_allowed_signers(receipt_line: str) -> bytes:
    """Return the allowed-signers file with which ``ssh-keygen -Y verify`` checks receipts."""
    return (signer_line(PRINCIPAL, receipt_line, namespace=NAMESPACE) + "\n").encode()


def render_receipts_readme(help_ja: str, help_en: str) -> bytes:
    """Return the page that says what the folder holds and how anybody can check it."""
    text = _README.format(principal=PRINCIPAL, namespace=NAMESPACE, signers=ALLOWED_SIGNERS, ja=help_ja, en=help_en)
    return ("\ufeff" + text.replace("\n", "\r\n")).encode()


def _time(at: datetime) -> str:
    return f"{at.astimezone(_JAPAN):%Y-%m-%d %H:%M:%S} JST"


def _one_line(name: str) -> str:
    """Return *name* without characters that would begin a line of their own or turn the text."""
    return "".join(character if character.isprintable() else "?" for character in name)


_PROVES_JA = (
    "この書類と署名（.sig）は、上の日時に上の出来事があったことを、サーバーの運営者が示すものです。",
    "SHA-256 が同じファイルは、そのとき送られたファイルと同じ内容です。",
    "ファイルの中身が正しいこと、担当者が読んで理解したことを示すものではありません。",
)
_PROVES_EN = (
    "This text with its signature (.sig) is the relay operator's word that this happened at that time.",
    "A file with the same SHA-256 has the content that was sent then.",
    "It does not say that the content is right, nor that a person has read and understood it.",
)
_README = """\
このフォルダーについて
======================

  送受信の記録（受付証、取得証など）が、月ごとのフォルダーに入っています。
  運営指導のときに、いつ何を送り、いつ相手が取得したかを示すのに使えます。

  ….txt       記録です。メモ帳で開けます。
  ….txt.sig   改ざんされていないことを確かめるための署名です。
  {signers}   署名を確かめるための公開鍵です。

  確かめ方（Windows や Mac に入っている ssh-keygen を使います）:

    ssh-keygen -Y verify -f {signers} -I {principal} -n {namespace} -s ファイル名.txt.sig < ファイル名.txt

  「Good」と表示されれば、記録は発行されたときのままです。
  記録を残しておきたいときは、.txt と .txt.sig をいっしょに保存してください。

{ja}


About this folder
=================

  Receipts of what was sent and received, a folder a month: the text, its
  signature (.sig), and the public key to check it with ({signers}):

    ssh-keygen -Y verify -f {signers} -I {principal} -n {namespace} -s NAME.txt.sig < NAME.txt

  "Good" means that the receipt is as it was issued. Keep both files together.

{en}
"""
