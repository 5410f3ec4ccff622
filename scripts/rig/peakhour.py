"""The busiest hour of the country's month: how much of what happens in it, and why we think so.

Nobody has published figures of it.  Every number below but the first two is an assumption, named with its reason, so that who
knows better can put his own in its place and see what comes out.
"""

from dataclasses import dataclass

from rig.country import CARE_MANAGERS, PARTNERS_OF_ONE, read_prefectures

HOUR_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Assumption:
    """A number, and why it is taken."""

    name: str
    value: float
    reason: str


OFFICES = Assumption(
    "offices",
    float(sum(each.offices for each in read_prefectures())),
    "the published table of 2023-11-06, all of them using the relay",
)
MANAGERS = Assumption(
    "care managers", CARE_MANAGERS, "the ministry's statistics of benefits for April 2024: those that were paid for"
)
PARTNERS = Assumption(
    "partners of a care manager",
    PARTNERS_OF_ONE,
    "104 persons (3.79 million by the same statistics), two or three services each, with the neighbourhood's offices",
)
PLANS = Assumption(
    "files a month from a care manager to each partner",
    3,
    "a slip with its annex, and a plan where one changed; all persons in one file",
)
RESULTS = Assumption("files a month back from each partner", 1, "the results of all persons in one file")
BUSIEST_DAY = Assumption(
    "share of a month's files on its busiest day",
    0.20,
    "results are due in the first days of a month, before the claims of the 10th",
)
BUSIEST_HOUR = Assumption(
    "share of that day in its busiest hour", 0.20, "offices work from 9 to 18; twice the even share"
)
REFUSED = Assumption(
    "share of uploads that are refused", 0.02, "a mistyped recipient or a file of the wrong month, noticed and mended"
)
FILES_A_VISIT = Assumption("files in one sending session", 5, "staff drag a handful; care software sends what is ready")
POLLING = Assumption(
    "share of offices whose program polls", 0.5, "care software in the background; the others look in by hand"
)
POLLS_AN_HOUR = Assumption("polls an hour of each of them", 4, "every fifteen minutes is what such programs are set to")
LOOKING_IN = Assumption("visits in that hour of each other office", 0.5, "one look by hand in two hours")
KEPT_OPEN = Assumption(
    "share of visits over a session that stays open", 0.2, "most programs connect, do their work and leave"
)

ASSUMPTIONS = (
    OFFICES, MANAGERS, PARTNERS, PLANS, RESULTS, BUSIEST_DAY, BUSIEST_HOUR, REFUSED, FILES_A_VISIT, POLLING, POLLS_AN_HOUR,
    LOOKING_IN, KEPT_OPEN,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rates:
    """What the whole country does in a second of its busiest hour."""

    files: float
    sendings: float
    polls: float

    @property
    def visits(self) -> float:
        """Sessions, those that stay open counted at each use."""
        return self.sendings + self.polls

    @property
    def cold_logins(self) -> float:
        """Connections that begin with a key exchange and a certificate."""
        return self.visits * (1 - KEPT_OPEN.value)


def country_rates() -> Rates:
    """Carry out the arithmetic that `explain` writes down."""
    month = MANAGERS.value * PARTNERS.value * (PLANS.value + RESULTS.value)
    files = month * BUSIEST_DAY.value * BUSIEST_HOUR.value / HOUR_SECONDS
    polling = OFFICES.value * POLLING.value * POLLS_AN_HOUR.value
    looking = OFFICES.value * (1 - POLLING.value) * LOOKING_IN.value
    return Rates(files, files / FILES_A_VISIT.value, (polling + looking) / HOUR_SECONDS)


def explain() -> list[str]:
    """Write the arithmetic down, a line each."""
    rates = country_rates()
    month = MANAGERS.value * PARTNERS.value * (PLANS.value + RESULTS.value)
    lines = [f"{each.name}: {each.value:,g} ({each.reason})" for each in ASSUMPTIONS]
    return [
        *lines,
        f"files a month = {MANAGERS.value:,.0f} × {PARTNERS.value:g} × ({PLANS.value:g} + {RESULTS.value:g}) = {month:,.0f}",
        (
            f"uploads a second = {month:,.0f} × {BUSIEST_DAY.value:g} × {BUSIEST_HOUR.value:g} ÷ 3,600 = {rates.files:.1f}; "
            "as many downloads"
        ),
        f"sending sessions a second = {rates.files:.1f} ÷ {FILES_A_VISIT.value:g} = {rates.sendings:.1f}",
        (
            f"polls a second = {OFFICES.value:,.0f} × ({POLLING.value:g} × {POLLS_AN_HOUR.value:g} + {1 - POLLING.value:g} × "
            f"{LOOKING_IN.value:g}) ÷ 3,600 = {rates.polls:.1f}"
        ),
        f"cold logins a second = ({rates.sendings:.1f} + {rates.polls:.1f}) × {1 - KEPT_OPEN.value:g} = {rates.cold_logins:.1f}",
    ]
