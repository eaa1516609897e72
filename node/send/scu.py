"""Send objects to one destination, or ask whether it is there; used by the sender and the command line."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID

from node.errors import Broken
from node.model import Trouble
from node.send.association import VERIFICATION, Answer, Association, open_association
from node.send.link import Lost
from node.send.negotiation import MOST_CONTEXTS, Pair, proposable
from node.send.part10 import dataset_extent
from node.send.protocol import Destination, Item, Kind, Result
from node.send.status import kind_of, meaning_of
from node.send.streak import MOST_EQUAL, Streak

Report = Callable[[Result], None]


class Hindrance(str):
    """The sentence that says why a destination could not be talked to, and of which kind that is."""

    trouble: Trouble

    def __new__(cls, words: str, trouble: Trouble) -> Hindrance:
        """A sentence that begins with the destination's name."""
        made = super().__new__(cls, words)
        made.trouble = trouble
        return made


class _LocalError(Exception):
    """Our own file failed in the middle of an object: the association is spoilt, the destination is not."""


def send_objects(
    destination: Destination,
    items: Iterable[Item],
    report: Report,
    stopping: Callable[[], bool] = lambda: False,
) -> Hindrance | None:
    """Send *items* in their order, and report each exactly once.

    Opens a further association where more than 128 presentation contexts are needed. *stopping* is
    asked before each object. Returns None, or the sentence that says why the destination could not be
    talked to, or is left because it answered `MOST_EQUAL` times in a row with the same failure; the rest
    was then reported as not tried.
    """
    sending = _Sending(destination, deque(items), report, stopping)
    while sending.waiting:
        if stopping():
            sending.leave("the node is stopping; it is sent after the restart")
            return None
        try:
            sending.next_association()
        except _LocalError:
            continue  # reported; the others go over a new association
        except Lost as error:
            sending.leave(f"{destination.name} could not be talked to; it was not tried")
            return Hindrance(f"{destination.where} {error}", error.trouble)
        if sending.equal.long and sending.waiting:
            sending.leave(f"{destination.name} refused {MOST_EQUAL} before it; it was not tried")
            return Hindrance(f"{destination.where} {sending.equal.words}", Trouble.PAUSED)
    return None


def echo(destination: Destination) -> Hindrance | None:
    """C-ECHO. Returns None when the destination is there and accepts us, else why not and what next."""
    try:
        with open_association(destination, [VERIFICATION]) as association:
            if VERIFICATION in association.refused:
                words = "accepts associations but not C-ECHO; see its settings"
                return Hindrance(f"{destination.where} {words}", Trouble.REJECTED)
            status = association.echo()
    except Lost as error:
        return Hindrance(f"{destination.where} {error}", error.trouble)
    if status == 0:
        return None
    meaning = "no status" if status is None else meaning_of(status)
    return Hindrance(f"{destination.where} answered C-ECHO with {meaning}; see its log", Trouble.REJECTED)


def probe(destination: Destination, pairs: Sequence[Pair]) -> tuple[dict[Pair, str], Hindrance | None]:
    """Propose every pair of SOP class and transfer syntax, and send nothing.

    Returns why each one is refused, empty where it is accepted; and why the destination could not be talked to,
    where it could not be.
    """
    answers: dict[Pair, str] = {}
    for first in range(0, len(pairs), MOST_CONTEXTS):
        try:
            with open_association(destination, pairs[first : first + MOST_CONTEXTS]) as association:
                answers |= {**dict.fromkeys(association.accepted, ""), **association.refused}
        except Lost as error:
            return answers, Hindrance(f"{destination.where} {error}", error.trouble)
    return answers, None


def item_of(path: Path, number: int) -> Item:
    """Make the item number *number* of a file that no database knows, for the command line.

    Raises Broken when it is no Part 10 file or does not say what it is, OSError when it cannot be read.
    """
    try:
        found = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
        meta = found.file_meta
        sop_class = found.get("SOPClassUID") or meta.MediaStorageSOPClassUID
        sop_uid = found.get("SOPInstanceUID") or meta.MediaStorageSOPInstanceUID
        return Item(number, 1, str(path), str(sop_class), str(sop_uid), str(meta.TransferSyntaxUID))
    except OSError:
        raise
    except Exception as error:  # pydicom raises whatever a damaged file leads it to
        raise Broken(
            f"{path} cannot be sent: it is no DICOM Part 10 file that names its class and UID"
        ) from error


@dataclass(frozen=True)
class _Sending:
    """One batch on its way: an item leaves *waiting* when it is reported, and only then."""

    destination: Destination
    waiting: deque[Item]
    report: Report
    stopping: Callable[[], bool]
    equal: Streak = field(default_factory=Streak)

    def next_association(self) -> None:
        """Send as many from the front as fit into one association."""
        group = _first_group(self.waiting, self.destination.alternatives)
        wanted = dict.fromkeys(pair for pair in map(_pair, group) if proposable(pair))
        pairs = {**wanted, **dict.fromkeys(_beside(wanted, self.destination.alternatives))}
        if not pairs:
            for item in group:
                self.done(_result(item, Kind.REFUSED_CONTEXT, None, _illegal(item)))
            return
        with open_association(self.destination, (*pairs, VERIFICATION)) as association:
            if not association.accepted:  # not one class of ours is unwelcome, but everything
                raise Lost("accepts none of what was proposed; see its settings", Trouble.REJECTED)
            for item in group:
                if self.stopping() or self.equal.long:
                    return
                self.send(association, item)

    def send(self, association: Association, item: Item) -> None:
        """Send and report one item; raises Lost or _LocalError when the association must be left."""
        pair, name = _pair(item), self.destination.name
        if not proposable(pair) or not item.sop_uid:
            self.done(_result(item, Kind.REFUSED_CONTEXT, None, _illegal(item)))
        elif pair in association.refused:
            self.done(self._refused(association, item))
        else:
            try:
                self.done(_send_one(association, self.destination, item))
            except Lost as error:
                why = f"{name} {error}; whether it has the object is not known"
                self.done(_result(item, Kind.FAILED, None, why))
                raise
            except _LocalError as error:
                self.done(_result(item, Kind.UNREADABLE_FILE, None, str(error)))
                raise

    def _refused(self, association: Association, item: Item) -> Result:
        """Why the item's context is not accepted, and in which of its alternatives its class is."""
        others = [s for s in self.destination.alternatives if s != item.transfer_syntax]
        takes = tuple(s for s in others if (item.sop_class, s) in association.accepted)
        why = f"{self.destination.name} does not accept {_named(item)}: {association.refused[_pair(item)]}"
        if others and not takes:
            why += f"; nor does it take {' or '.join(UID(s).name for s in others)}"
        return replace(_result(item, Kind.REFUSED_CONTEXT, None, why), accepts=takes)

    def done(self, result: Result) -> None:
        """Report the item at the front."""
        self.waiting.popleft()
        self.equal.see(result)
        self.report(result)

    def leave(self, why: str) -> None:
        """Report the rest as not tried."""
        while self.waiting:
            self.done(_result(self.waiting[0], Kind.NOT_TRIED, None, why))


def _send_one(association: Association, destination: Destination, item: Item) -> Result:
    """One C-STORE; raises Lost or _LocalError when the association must be left."""
    path = Path(item.path)
    sending, length = False, 0
    try:
        with path.open("rb", buffering=0) as file:
            offset, length = dataset_extent(file)
            file.seek(offset)
            sending = True
            answer = association.store(_pair(item), item.sop_uid, file, length)
    except Lost as error:
        if length % 2:  # a broken object of the scanner's; DCMTK, and so Orthanc, abort on it
            raise Lost(f"{error}; the cause may be that its dataset has an odd number of bytes") from error
        raise
    except (OSError, Broken) as error:
        why = error.strerror if isinstance(error, OSError) else error
        fault = f"{path.name} cannot be sent: {why}"
        if sending:
            raise _LocalError(fault) from error
        return _result(item, Kind.UNREADABLE_FILE, None, fault)
    return _judged(item, destination, answer)


def _judged(item: Item, destination: Destination, answer: Answer) -> Result:
    kind = kind_of(answer.status)
    what = meaning_of(answer.status)
    if kind == Kind.FAILED:
        what = f"{destination.name} answered {what}"
    if answer.offending:
        what += f"; it names {answer.offending}"
    return _result(item, kind, answer.status, what, answer.comment)


def _first_group(waiting: Iterable[Item], alternatives: Sequence[str] = ()) -> list[Item]:
    """As many from the front as fit into one association, order kept: what is referenced goes first."""
    pairs: set[Pair] = set()
    group = []
    for item in waiting:
        pair = _pair(item)
        if pair not in pairs and proposable(pair):
            more = pairs | {pair, *_beside([pair], alternatives)}
            if len(more) > MOST_CONTEXTS - 1:  # the last one is C-ECHO's
                break
            pairs = more
        group.append(item)
    return group


def _beside(pairs: Iterable[Pair], alternatives: Sequence[str]) -> Iterator[Pair]:
    """What is proposed to learn what a refused object can be transcoded to: each alternative, alone."""
    return ((sop_class, syntax) for sop_class, _ in pairs for syntax in alternatives)


def _pair(item: Item) -> Pair:
    return item.sop_class, item.transfer_syntax


def _named(item: Item) -> str:
    return f"{UID(item.sop_class).name} in {UID(item.transfer_syntax).name}"


def _illegal(item: Item) -> str:
    if not item.sop_uid:
        return "it cannot be sent to anyone: it has no SOP Instance UID"
    wrong = next(uid for uid in _pair(item) if not proposable((uid, uid)))
    return f"it cannot be sent to anyone: {wrong[:80]!r} is no UID for a presentation context (PS3.5 9.1)"


def _result(item: Item, kind: Kind, status: int | None, what: str, comment: str = "") -> Result:
    return Result(item.delivery, item.attempt, kind, status, what, comment)
