"""What the sender has in hand: batches and questions that are under way, and what became of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from node.child import LineChild
from node.commitment import Dialogue
from node.model import Trouble
from node.send.protocol import (
    Ask,
    Asked,
    Batch,
    Command,
    Destination,
    Echo,
    Echoed,
    Finished,
    Item,
    Outcomes,
    Report,
    Reported,
    Result,
    outcome_from_json,
    to_json,
)
from node.send.streak import Streak

Heard = Outcomes | Finished | Echoed | Asked | Reported


@dataclass
class UnderWay:
    """A batch or a question that the sender has not finished."""

    command: Command
    blamed: bool = False
    """An object of it ended its association: that says nothing about the destination."""
    taken: bool = False
    """The destination took something of it."""

    @property
    def to(self) -> str:
        """The destination's name."""
        return self.command.destination.name

    @property
    def of_commitment(self) -> bool:
        """It asks for commitment or reports on it."""
        return isinstance(self.command, Ask | Report)

    @property
    def deliveries(self) -> list[int]:
        """The deliveries that were claimed for it."""
        return [item.delivery for item in self.command.objects] if isinstance(self.command, Batch) else []


@dataclass
class Sendings:
    """The sender, and what it was told to do."""

    child: LineChild = field(default_factory=lambda: LineChild("node.sender"))
    open: dict[int, UnderWay] = field(default_factory=dict)
    streaks: dict[str, Streak] = field(default_factory=dict)
    """Destination → the equal failures that it gave last, over all batches."""
    _next: int = 1

    def count(self, to: str) -> int:
        """How many batches and questions are under way to a destination; commitment is beside them."""
        return sum(one.to == to and not one.of_commitment for one in self.open.values())

    def send(self, where: Destination, items: tuple[Item, ...]) -> None:
        """Hand over a batch; where the sender has died meanwhile, `heard` tells."""
        self._say(Batch(self._next, where, items))

    def ask(self, where: Destination) -> None:
        """Have the destination asked whether it is there."""
        self._say(Echo(self._next, where))

    def see(self, one: UnderWay, results: Iterable[Result]) -> None:
        """Count equal failures in a row."""
        streak = self.streaks.setdefault(one.to, Streak())
        for result in results:
            streak.see(result)

    def trouble(self, one: UnderWay, message: Finished) -> tuple[str | None, Trouble]:
        """Why the destination is to be left alone now that this is over, None where it is not; and of which kind.

        An object that ended its association says nothing about it; many in a row that fail alike do.
        """
        if one.blamed:
            return None, message.trouble
        streak = self.streaks.get(one.to)
        if message.destination_error is None and streak and streak.long and not one.taken:
            return f"{one.command.destination.where} {streak.words}", Trouble.PAUSED
        return message.destination_error, message.trouble

    def ask_to_commit(self, where: Destination, said: Dialogue) -> None:
        """Have the destination asked to commit to objects."""
        self._say(Ask(self._next, where, said))

    def report(self, where: Destination, said: Dialogue) -> int:
        """Have a peer told what was committed to of what it asked; the command's number."""
        command = Report(self._next, where, said)
        self._say(command)
        return command.id

    def talks(self, kind: type[Ask] | type[Report]) -> list[UnderWay]:
        """What of this kind is under way."""
        return [one for one in self.open.values() if isinstance(one.command, kind)]

    def _say(self, command: Command) -> None:
        self.open[command.id] = UnderWay(command)
        self._next += 1
        self.child.say(to_json(command))

    def heard(self) -> tuple[list[tuple[UnderWay, Heard]], list[UnderWay]]:
        """What came of what is under way, in order; and what the sender's death leaves without an answer."""
        lines, alive = self.child.lines()
        found: list[tuple[UnderWay, Heard]] = []
        for line in lines:
            message = outcome_from_json(line)
            key = message.batch if isinstance(message, Outcomes | Finished) else message.id
            known = self.open.get(key)
            if known is None:
                continue
            if not isinstance(message, Outcomes):
                del self.open[key]
            found.append((known, message))
        lost: list[UnderWay] = []
        if not alive:
            lost = list(self.open.values())
            self.open.clear()
        return found, lost
