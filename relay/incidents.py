"""Incidents: what both offices are told of a file that the operator held, gave back, or noted as misdirected.

The same words stand in ``status/`` and in お知らせ.txt: what happened, and what to do next.  Why is told in the operator's own
words behind them.  A sender and a recipient of one file read different sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relay.ledger.intervening import Incident, IncidentKind
from relay.model import OfficeNumber


@dataclass(frozen=True, slots=True)
class Words:
    """What one side is told: a heading, what to do, and a line of English."""

    title: str
    advice: str
    en: str


_TO_SENDER: Mapping[IncidentKind, Words] = {
    IncidentKind.HELD: Words(
        "運営者が止めているファイル",
        "運営者がこのファイルを一時的に止めています。相手からは見えません。宛先が正しければ、そのままお待ちください。"
        "違うときは send/ から recall/ へ移して取り消し、介護ソフトで宛先を選び直して送り直してください。",
        "Held by the operator: move it into recall/ if it went to the wrong office, else wait.",
    ),
    IncidentKind.RETURNED: Words(
        "運営者がお返ししたファイル",
        "相手が取得する前に、運営者がこのファイルをお返ししました。中身は recall/ から1週間ダウンロードできます。"
        "宛先を確かめ、介護ソフトで宛先を選び直して出力し、送り直してください。",
        "Given back to you before it was collected: see to the recipient and send it again.",
    ),
    IncidentKind.REPORTED: Words(
        "誤送信の連絡があったファイル",
        "相手が先に取得していたため、取り戻せません。相手には削除をお願いしています。相手の事業所に電話で確かめ、"
        "正しい宛先へは、介護ソフトで宛先を選び直して送り直してください。",
        "Reported as misdirected after it was collected: call that office, and send it again to the right one.",
    ),
}
_TO_RECIPIENT: Mapping[IncidentKind, Words] = {
    IncidentKind.HELD: Words(
        "運営者が止めているファイル",
        "運営者が確認のため、このファイルを一時的に止めています。取り込まないでお待ちください。",
        "Held by the operator for the time being: do not import it, and wait.",
    ),
    IncidentKind.RETURNED: Words(
        "運営者が送信元へ返したファイル",
        "運営者がこのファイルを送信元へ返しました。取り込まないでください。途中までダウンロードしたものがあれば、削除してください。",
        "Given back to its sender: delete what you may have downloaded of it.",
    ),
    IncidentKind.REPORTED: Words(
        "誤送信の連絡があったファイル",
        "貴事業所あてではなかったと連絡がありました。ダウンロードしたファイルを削除し、介護ソフトに取り込んだ内容も消してください。"
        "終わったら、送信元の事業所に電話で知らせてください。",
        "Reported as misdirected: delete your copies, also in your care software, and tell the sender.",
    ),
}


def tell_incident(incident: Incident, office: OfficeNumber) -> Words:
    """Return what *office*, one of the two, is told."""
    return (_TO_SENDER if incident.transfer.sender == office else _TO_RECIPIENT)[incident.kind]
