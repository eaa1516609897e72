"""START READING HERE: the whole road of an object, one module per step.

    keep → take_in → seal → route → run → deliver

1. *keep* is the receivers' and lives in `store.files.ObjectFolder.keep`: it returns when losing power can no
   longer lose the object, and only then is status 0x0000 sent. Everything below runs in the conductor.
2. `taking.take_in` indexes one object and judges it against what is known; `joining.join` puts it into its series,
   and `routing.route_at_once` queues it where a rule sends each object as it arrives.
3. `sealing.seal` closes a revision of a series when the evidence says that it is complete.
4. `routing.route` judges the sealed revision by every rule, opens runs, and queues received objects. Rules over
   a study are judged there, too, and when a wait ends: `studying.judge_study`; `wanting` writes down which earlier
   studies they ask for.
5. `running.start_run` makes a job for a worker; `running.finish_run` queues what the worker made.
6. `delivering.deliver` claims a batch for a destination; `delivered` and `batch_over` take its answers. What is
   refused in its transfer syntax is sent as a copy in another: `transcoding.to_copy`, `copied`.
7. `committing.ask_to_commit` asks a destination that commits (PS3.4 J) about what it stored, `answered` takes its
   report; `pledging.pledged` and `look` do the same for a peer that asks us, on behalf of such a destination.

What speaks for completeness beside the objects themselves: `performing.performed` takes what modalities say of
their steps (MPPS, PS3.4 F.7), `counting.to_count` and `counted_there` ask other systems for counts (C-FIND).

What rules over studies want of earlier ones: `fetching.ask_for_prior`, `offered` and `finish_fetch`,
and `fetched.take_fetched` for what comes of it.

What goes back: `rejecting.reject` for what a received rejection note names, `withdrawing.withdraw` for results of
ours that are not valid any more.

Each function claims rows, calls one room, and leaves the rest to the transaction that its caller opened;
what must happen after the commit is returned.
"""

from node.flow.clock import cap_waits, set_back
from node.flow.committing import answered, ask_to_commit, asked, nobody_knows, unanswered
from node.flow.counting import callable_peer, counted_there, to_count
from node.flow.delivering import Heard, batch_over, deliver, delivered, probed
from node.flow.fetching import ask_for_prior, cells, finish_fetch, nobody_asks, offered, sent
from node.flow.joining import made_by_a_node, members_of
from node.flow.numbering import number_series
from node.flow.parts import NODE_MAJOR, SOFTWARE, Parts, Started
from node.flow.performing import named_by_steps, performed
from node.flow.pledging import look, pledged, reported
from node.flow.routing import judgements, route
from node.flow.running import finish_run, retry_wait, start_run, startable
from node.flow.sealing import attention_at, seal, seal_policy
from node.flow.studying import judge_study, study_judgements
from node.flow.taking import (
    Taken,
    compared,
    counted,
    released,
    set_aside,
    take_in,
    unreadable,
    unreadable_now,
)
from node.flow.transcoding import Copying, copied, to_copy

__all__ = [
    "NODE_MAJOR",
    "SOFTWARE",
    "Copying",
    "Heard",
    "Parts",
    "Started",
    "Taken",
    "answered",
    "ask_for_prior",
    "ask_to_commit",
    "asked",
    "attention_at",
    "batch_over",
    "callable_peer",
    "cap_waits",
    "cells",
    "compared",
    "copied",
    "counted",
    "counted_there",
    "deliver",
    "delivered",
    "finish_fetch",
    "finish_run",
    "judge_study",
    "judgements",
    "look",
    "made_by_a_node",
    "members_of",
    "named_by_steps",
    "nobody_asks",
    "nobody_knows",
    "number_series",
    "offered",
    "performed",
    "pledged",
    "probed",
    "released",
    "reported",
    "retry_wait",
    "route",
    "seal",
    "seal_policy",
    "sent",
    "set_aside",
    "set_back",
    "start_run",
    "startable",
    "study_judgements",
    "take_in",
    "to_copy",
    "to_count",
    "unanswered",
    "unreadable",
    "unreadable_now",
]
